"""``ragserve COMMAND``: options, and what each command starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ragserve.cli.remote import Remote
from ragserve.config import Config, load_config, render_defaults
from ragserve.flow.principal import DEFAULT_TENANT, SCOPES
from ragserve.schema import KeyLimits

F = TypeVar("F", bound=Callable[..., Any])

SERVERS = ("serve", "worker", "ingester", "database")
"""Commands whose log is their output; the others speak to a person, who hears of trouble only."""
MAX_WORKERS = 256
WORKERS = "RAGSERVE_WORKERS"
"""The environment's name for the number of a host's workers."""
DEFAULT_FILES = ("ragserve.toml", "/etc/ragserve/ragserve.toml")
"""Where a configuration is looked for unless ``--config`` or RAGSERVE_CONFIG names one."""


class Settings(msgspec.Struct, frozen=True):
    """What every command gets."""

    config: Config
    config_file: Path | None
    data_dir: Path
    reload: Callable[[], Config]


def with_settings(command: F) -> F:
    """Add the options that every command has; pass it ``settings``."""
    speaks = command.__name__ not in SERVERS

    @click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file.")
    @click.option("--data-dir", help="Data directory (storage.data_dir).")
    def wrapper(config_file: Path | None, data_dir: str | None, **rest: Any) -> Any:
        overrides = {"storage.data_dir": data_dir}
        for name in ("host", "port"):
            overrides[f"server.{name}"] = rest.pop(name, None)
        chosen = {name: value for name, value in overrides.items() if value is not None}

        def load() -> Config:
            return load_config(file, os.environ, chosen)

        file = _config_file(config_file)
        config = load()
        if command.__name__ != "serve":  # the supervisor has a smaller log
            from ragserve.log import configure_logging

            configure_logging(config.log, for_a_person=speaks)
        return command(settings=Settings(config, file, _data_dir(config), load), **rest)

    wrapper.__name__ = command.__name__
    wrapper.__doc__ = command.__doc__
    wrapper.__click_params__ = [  # type: ignore[attr-defined]
        *getattr(command, "__click_params__", []),
        *wrapper.__click_params__,  # type: ignore[attr-defined]
    ]
    return wrapper  # type: ignore[return-value]


def _config_file(given: Path | None) -> Path | None:
    if given is not None:
        return given
    if named := os.environ.get("RAGSERVE_CONFIG"):
        return Path(named)
    return next((Path(name) for name in DEFAULT_FILES if Path(name).is_file()), None)


def _data_dir(config: Config) -> Path:
    if config.storage.data_dir:
        return Path(config.storage.data_dir).expanduser().absolute()
    if os.geteuid() == 0:
        # The embedded PostgreSQL runs as another user then, who cannot enter root's home.
        return Path("/var/lib/ragserve")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser().absolute() / "ragserve"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ragserve", message="%(version)s")
def cli() -> None:
    """Answer questions from your own documents, with citations."""


@cli.command()
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", help="TCP port (server.port).")
@click.option(
    "--workers",
    default="auto",
    show_default=True,
    envvar=WORKERS,
    help=f"Worker processes ({WORKERS}); auto: one per core.",
)
@with_settings
def serve(settings: Settings, workers: str) -> int:
    """Run the server: workers, ingest process and, unless configured, a database."""
    from ragserve.cli.serve import run

    number = _number_of_workers(workers, len(os.sched_getaffinity(0)))
    return run(settings.config, settings.data_dir, number, settings.reload)


def _number_of_workers(given: str, cores: int) -> int:
    if given == "auto":
        return min(cores, MAX_WORKERS)
    if not (given.isdecimal() and 1 <= int(given) <= MAX_WORKERS):
        raise click.BadParameter(f"{given!r} is neither auto nor 1 to {MAX_WORKERS}")
    return int(given)


@cli.command()
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", help="TCP port (server.port).")
@click.option(
    "--workers",
    default="1",
    show_default=True,
    envvar=WORKERS,
    help=f"Workers of this host, who share its limits ({WORKERS}); auto: one per core.",
)
@with_settings
def worker(settings: Settings, workers: str) -> int:
    """Run one worker; serve and systemd start these."""
    from ragserve.cli.serve import run_one_worker

    # Its own affinity says nothing of the others.
    number = _number_of_workers(workers, os.cpu_count() or 1)
    return run_one_worker(settings.config, settings.data_dir, number, settings.reload)


@cli.command()
@with_settings
def ingester(settings: Settings) -> int:
    """Run the ingest process; serve and systemd start it."""
    from ragserve.cli.serve import run_ingester

    return run_ingester(settings.config, settings.data_dir, settings.reload)


def _key_limits(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> KeyLimits:
    """Return the limits that NAME=N, several times, are."""
    given = {name: most for name, _, most in (value.partition("=") for value in values)}
    try:
        return msgspec.convert(given, KeyLimits, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(KeyLimits.__struct_fields__)
        raise click.BadParameter(f"{error}; NAME=N, the names are {names}") from error


@cli.group()
def keys() -> None:
    """Make, list, rotate and revoke clients' keys."""


@keys.command("create")
@click.argument("name")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose documents.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=("query",),
    show_default=True,
    help="What for; may be given several times.",
)
@click.option("--collection", "collections", multiple=True, help="Only these collections.")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="Valid for so long.")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=N",
    callback=_key_limits,
    help="In place of that of [rate], such as query_per_minute=600; 0: any number.",
)
@with_settings
def create_key(settings: Settings, **wanted: Any) -> int:
    """Make a key; its token is printed this once."""
    from ragserve.cli.keys import create

    return create(settings.config, settings.data_dir, **wanted)


@keys.command("list")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings
def list_keys(settings: Settings, tenant: str | None, as_json: bool) -> int:
    """List keys; their secrets are not stored."""
    from ragserve.cli.keys import listing

    return listing(settings.config, settings.data_dir, tenant=tenant, as_json=as_json)


@keys.command("limit")
@click.argument("key_id", metavar="ID")
@click.argument("limits", nargs=-1, metavar="[NAME=N]...", callback=_key_limits)
@with_settings
def limit_key(settings: Settings, key_id: str, limits: KeyLimits) -> int:
    """Give a key these limits in place of [rate]'s and of those it had; none: no own ones.

    Servers know within a second.
    """
    from ragserve.cli.keys import limit

    return limit(settings.config, settings.data_dir, key_id=key_id, limits=limits)


@keys.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--grace", "grace_s", default=3600.0, type=click.FloatRange(0), show_default=True)
@with_settings
def rotate_key(settings: Settings, key_id: str, grace_s: float) -> int:
    """Make a key like ID, which stays valid for --grace seconds."""
    from ragserve.cli.keys import rotate

    return rotate(settings.config, settings.data_dir, key_id=key_id, grace_s=grace_s)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@with_settings
def revoke_key(settings: Settings, key_id: str) -> int:
    """End a key; servers refuse it within a second."""
    from ragserve.cli.keys import revoke

    return revoke(settings.config, settings.data_dir, key_id=key_id)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--collection", "-c", default="default", show_default=True)
@click.option("--url", help="A running server; otherwise the database is used directly.")
@click.option("--key", envvar="RAGSERVE_KEY", help="A key of that server (RAGSERVE_KEY).")
@with_settings
def ingest(
    settings: Settings,
    paths: tuple[Path, ...],
    collection: str,
    url: str | None,
    key: str | None,
) -> int:
    """Take in files and folders; unchanged ones are skipped."""
    from ragserve.cli.ingest import run

    server = None if url is None else Remote(url, key)
    return run(settings.config, settings.data_dir, paths, collection, server)


@cli.command()
@click.argument("text")
@click.option("--collection", "-c", default="default", show_default=True)
@click.option("--top-k", type=click.IntRange(1), help="Passages to answer from.")
@click.option("--url", help="A running server; otherwise the database is used directly.")
@click.option("--json", "as_json", is_flag=True, help="Print the response of /v1/query.")
@click.option("--key", envvar="RAGSERVE_KEY", help="A key of that server (RAGSERVE_KEY).")
@with_settings
def query(
    settings: Settings,
    text: str,
    collection: str,
    top_k: int | None,
    url: str | None,
    as_json: bool,
    key: str | None,
) -> int:
    """Ask a question."""
    from ragserve.cli.query import run

    server = None if url is None else Remote(url, key)
    return run(settings.config, settings.data_dir, text, collection, top_k, server, as_json)


@cli.command()
@with_settings
def database(settings: Settings) -> int:
    """Run the embedded PostgreSQL by itself, for a host whose units share it."""
    from ragserve.cli.database import run

    return run(settings.data_dir)


@cli.command()
@with_settings
def migrate(settings: Settings) -> int:
    """Bring the database up to date."""
    from ragserve.cli.serve import run_migrate

    return run_migrate(settings.config, settings.data_dir)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings
def check(settings: Settings, as_json: bool) -> int:
    """Check configuration, host and every dependency; say what mends what is wrong."""
    from ragserve.cli.check import run

    return run(settings.config, settings.config_file, settings.data_dir, as_json=as_json)


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@with_settings
def backup(settings: Settings, file: Path) -> int:
    """Write the database and the settings without secrets to FILE; the server may run."""
    from ragserve.cli.backup import run

    return run(settings.config, settings.data_dir, file)


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Replace what the database holds.")
@with_settings
def restore(settings: Settings, file: Path, force: bool) -> int:
    """Bring back what backup wrote to FILE; no server may run."""
    from ragserve.cli.restore import run

    return run(settings.config, settings.data_dir, file, force=force)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@with_settings
def status(settings: Settings, as_json: bool) -> int:
    """Show the processes of this host."""
    from ragserve.cli.status import run

    return run(settings.config, settings.data_dir, dict(os.environ), as_json=as_json)


@cli.command("support-bundle")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--port", help="TCP port of the server to ask (server.port).")
@with_settings
def support_bundle(settings: Settings, file: Path | None) -> int:
    """Gather what helps to find a fault, without secrets, into a .tar.gz."""
    from ragserve.cli.bundle import run

    return run(settings.config, settings.config_file, settings.data_dir, file)


@cli.command("config")
def config_command() -> int:
    """Print a configuration file with every setting and its default."""
    click.echo(render_defaults(), nl=False)
    return 0


@cli.command()
def version() -> int:
    """Print the version."""
    from ragserve import __version__

    click.echo(__version__)
    return 0
