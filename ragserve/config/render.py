"""The commented configuration file with every default; ``conf/ragserve.toml`` is its output."""

from __future__ import annotations

from typing import get_args

import msgspec

from ragserve.config.settings import Config

HEAD = """\
# Every setting of ragserve with its default.
# The environment goes before this file: RAGSERVE_LLM__BASE_URL sets base_url in [llm].
# DATABASE_URL and OPENAI_API_KEY are understood, too.
"""


def render_defaults() -> str:
    """Return the TOML text of the defaults, one line of explanation above each setting."""
    return render(Config(), HEAD)


def render(config: Config, head: str) -> str:
    """Return the TOML text of ``config`` below ``head``."""
    parts = [head]
    for section in msgspec.structs.fields(Config):
        parts.append(f"\n# {section.type.__doc__}\n[{section.name}]\n")
        values = getattr(config, section.name)
        for field in msgspec.structs.fields(section.type):
            meta = get_args(field.type)[1]
            parts.append(
                f"# {meta.description}\n{field.name} = {_literal(getattr(values, field.name))}\n"
            )
    return "".join(parts)


def _literal(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_table, value))}]"
    # TOML's basic strings, integers, floats and booleans are written as JSON writes them.
    return msgspec.json.encode(value).decode()


def _table(struct: msgspec.Struct) -> str:
    fields = msgspec.structs.asdict(struct).items()
    return f"{{{', '.join(f'{name} = {_literal(value)}' for name, value in fields)}}}"
