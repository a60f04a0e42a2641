"""Build a ``Config`` from file and environment; refuse what is unknown or out of bounds.

Precedence, weakest first: defaults, the TOML file, the well-known variables ``DATABASE_URL``,
``REDIS_URL`` and ``OPENAI_API_KEY``, ``RAGSERVE_SECTION__NAME``, overrides of the command line.
A variable that is not set may be a credential of systemd's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from ragserve.config.credentials import read_credentials
from ragserve.config.redact import hide
from ragserve.config.settings import Config
from ragserve.errors import ConfigurationError

PREFIX = "RAGSERVE_"
WELL_KNOWN = {
    "DATABASE_URL": ("database.dsn",),
    "REDIS_URL": ("redis.url",),
    "OPENAI_API_KEY": ("llm.api_key", "embedding.api_key"),
}
# Named like settings, but for the command line and between our own processes.
RESERVED = frozenset(
    {
        "RAGSERVE_CONFIG",
        "RAGSERVE_KEY",
        "RAGSERVE_LISTEN_FD",
        "RAGSERVE_WORKER",
        "RAGSERVE_WORKERS",
        "RAGSERVE_SUPERVISOR",
    }
)


def load_config(
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Config:
    """Return the checked configuration; ``overrides`` maps ``section.name`` to a value.

    Raises ``ConfigurationError`` that names the setting, where it came from and what it allows.
    """
    environ = {**read_credentials(environ), **environ} if environ is not None else {}
    values: dict[str, dict[str, Any]] = {}
    if file is not None:
        for name, value in _read_file(file).items():
            _put(values, name, value, source=str(file))
    for variable, names in WELL_KNOWN.items():
        if environ.get(variable):
            for name in names:
                _put(values, name, environ[variable], source=variable)
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable not in RESERVED:
            name = variable.removeprefix(PREFIX).lower().replace("__", ".", 1)
            _put(values, name, value, source=variable)
    for name, value in (overrides or {}).items():
        _put(values, name, value, source="command line")
    config = Config(
        **{
            section.name: msgspec.convert(values.get(section.name, {}), section.type)
            for section in msgspec.structs.fields(Config)
        }
    )
    _check_together(config)
    return config


def _read_file(file: Path) -> dict[str, object]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"configuration file {file}: {error}") from error
    flat: dict[str, object] = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            _refuse(section, str(file))
        flat.update({f"{section}.{name}": value for name, value in table.items()})
    return flat


def _put(values: dict[str, dict[str, Any]], name: str, value: object, *, source: str) -> None:
    """Check one value by itself, so that an error can say where it came from."""
    kind = _kinds().get(name)
    if kind is None:
        _refuse(name, source)
    try:
        checked = msgspec.convert(value, kind, strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        shown = hide(value, name)
        raise ConfigurationError(f"{name} = {shown!r} ({source}): {error}") from error
    if checked in (float("inf"), float("-inf")):
        raise ConfigurationError(f"{name} = {value!r} ({source}): must be finite")
    section, _, field = name.partition(".")
    values.setdefault(section, {})[field] = checked


def _kinds() -> dict[str, Any]:
    return {
        f"{section.name}.{field.name}": field.type
        for section in msgspec.structs.fields(Config)
        for field in msgspec.structs.fields(section.type)
    }


def _refuse(name: str, source: str) -> NoReturn:
    import difflib  # for this alone, in a process that is about to end

    known = _kinds()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    raise ConfigurationError(f"unknown setting {name} ({source}); did you mean {near[0]}?")


def _check_together(config: Config) -> None:
    """Check what no single value shows."""
    chunking = config.chunking
    if chunking.overlap_tokens >= chunking.max_tokens:
        raise ConfigurationError(
            f"chunking.overlap_tokens = {chunking.overlap_tokens} must be below "
            f"chunking.max_tokens = {chunking.max_tokens}"
        )
    for name in ("dsn", "replica_dsn"):
        _check_dsn(f"database.{name}", getattr(config.database, name))


def _check_dsn(name: str, dsn: str) -> None:
    """Refuse what would be misread, without showing it: a password may be in the wrong place."""
    scheme, found, rest = dsn.partition("://")
    if not dsn:
        return
    if not found or scheme not in ("postgresql", "postgres"):
        raise ConfigurationError(f"{name} must begin with postgresql://")
    hosts = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    for host in hosts.split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not port.isdecimal():
            raise ConfigurationError(
                f"{name}: a port is no number; in a password / ? # @ : and % must be written as"
                " %2F %3F %23 %40 %3A %25"
            )
