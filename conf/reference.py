"""The reference in conf/README.md: ``python -m conf.reference`` writes it from the code itself.

Settings come from their types, metrics from their registry, exit codes from ``ragserve.errors``,
commands from the command line.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import click
import msgspec
from prometheus_client import Counter

from bench.marked import fill
from ragserve import errors, metrics
from ragserve.cli.main import cli
from ragserve.config import Config, UpstreamConfig

README = Path(__file__).parent / "README.md"
MODULE = "conf.reference"
UNITS = {
    "s": "seconds",
    "ms": "milliseconds",
    "bytes": "bytes",
    "tokens": "tokens",
    "days": "days",
    "minute": "a minute",
    "characters": "characters",
}
OTHER_CODES = {
    0: "All is well.",
    2: "The command line is wrong; `--help` explains it.",
    130: "Ctrl-C.",
}


def reference() -> str:
    """Return the whole reference as Markdown."""
    return "\n\n".join(
        [
            "### Settings",
            *settings(),
            "### Metrics",
            metrics_table(),
            "### Exit codes",
            exit_codes(),
            "### Commands",
            commands(),
        ]
    )


def settings() -> Iterator[str]:
    """Yield a table for each section."""
    for section in msgspec.structs.fields(Config):
        yield f"**`[{section.name}]`** {section.type.__doc__}"
        values = getattr(Config(), section.name)
        yield _table(
            section.type,
            lambda name, values=values: getattr(values, name),
            f"RAGSERVE_{section.name.upper()}__",
        )
    yield f"**`[[llm.upstreams]]`** {UpstreamConfig.__doc__} In the file only."
    defaults = {field.name: field.default for field in msgspec.structs.fields(UpstreamConfig)}
    yield _table(UpstreamConfig, defaults.__getitem__, "")


def _table(struct: Any, default_of: Any, prefix: str) -> str:
    variable = " variable |" if prefix else ""
    lines = [
        f"| setting | default | unit, values | meaning |{variable}",
        f"|---|---|---|---|{'---|' if prefix else ''}",
    ]
    for field in msgspec.structs.fields(struct):
        kind, meta = get_args(field.type)
        default = default_of(field.name)
        shown = "needed" if default is msgspec.NODEFAULT else _literal(default)
        name = f" `{prefix}{field.name.upper()}` |" if prefix else ""
        lines.append(
            f"| `{field.name}` | {shown} | {_values(field.name, kind, meta)}"
            f" | {_cell(meta.description)} |{name}"
        )
    return "\n".join(lines)


def _literal(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return "empty" if text == '""' else f"`{text}`"


def _values(name: str, kind: Any, meta: msgspec.Meta) -> str:
    """Return unit and bounds, or the values there are."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if kind is bool:
        return "`true`, `false`"
    suffix = name.rpartition("_")[2]
    unit = "bytes a second" if name.endswith("bytes_per_s") else UNITS.get(suffix, "")
    bounds = []
    if meta.gt is not None:
        bounds.append(f"> {meta.gt:,}")
    if meta.ge is not None:
        bounds.append(f"≥ {meta.ge:,}")
    if meta.le is not None:
        bounds.append(f"≤ {meta.le:,}")
    kinds = {str: "text", int: "integer", float: "number"}
    what = unit or ("" if isinstance(kind, UnionType) else kinds.get(kind, "tables"))
    return " ".join(part for part in (what, ", ".join(bounds)) if part)


def metrics_table() -> str:
    """Return every metric with its type and labels."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in sorted(all_metrics(), key=lambda metric: str(metric._name)):
        name = metric._name + ("_total" if isinstance(metric, Counter) else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        lines.append(f"| `{name}` | {metric._type} | {labels} | {_cell(metric._documentation)} |")
    return "\n".join(lines)


def all_metrics() -> list[Any]:
    """Return what ``ragserve.metrics`` makes, those that are kept aside, too."""
    found = []
    for value in vars(metrics).values():
        if isinstance(value, metrics.Observations):
            value = value._histogram
        if hasattr(value, "_documentation") and not inspect.isclass(value):
            found.append(value)
    return found


def exit_codes() -> str:
    """Return the codes that commands end with."""
    lines = ["| code | name | meaning |", "|---:|---|---|"]
    found = {number: ("", meaning) for number, meaning in OTHER_CODES.items()}
    body = ast.parse(inspect.getsource(errors)).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int(number))):
                if not name.startswith("EXIT_"):
                    continue
                match following:
                    case ast.Expr(value=ast.Constant(value=str(meaning))):
                        found[number] = (f"`{name}`", meaning)
                    case _:
                        raise SystemExit(f"errors.{name} has no explanation below it")
    lines += [
        f"| {number} | {name} | {_cell(meaning)} |"
        for number, (name, meaning) in sorted(found.items())
    ]
    return "\n".join(lines)


def commands() -> str:
    """Return every command, its arguments and options."""
    lines = ["| command | |", "|---|---|"]
    for path, command in sorted(_commands("ragserve", cli)):
        arguments, options = [], []
        for parameter in command.params:
            if isinstance(parameter, click.Argument):
                arguments.append(parameter.make_metavar(click.Context(command)))
            elif parameter.name not in ("config_file", "data_dir"):
                options.append(max(parameter.opts, key=len))
        usage = " ".join([path, *arguments, *(f"[{option}]" for option in options)])
        lines.append(f"| `{usage}` | {_cell((command.help or '').partition(chr(10))[0])} |")
    return "\n".join(lines)


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from _commands(f"{path} {name}", below)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def main() -> None:
    """Run from the command line."""
    fill(README, MODULE, reference())


if __name__ == "__main__":
    main()
