"""``keys``: made, listed, rotated and revoked in the database; servers notice within a second."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from ragserve.cli.waiting import database_here
from ragserve.config import Config
from ragserve.schema import KeyLimits, Scope
from ragserve.store.keys import Key, create_key, limit_key, list_keys, revoke_key, rotate_key
from ragserve.store.migrate import prepare_database
from ragserve.store.pool import Database

T = TypeVar("T")


def create(
    config: Config,
    data_dir: Path,
    *,
    name: str,
    tenant: str,
    scopes: tuple[Scope, ...],
    collections: tuple[str, ...],
    days: float | None,
    limits: KeyLimits,
) -> int:
    """Make a key and print its token, which cannot be had again."""
    expires_at = None if days is None else dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    key, token = _with_database(
        config,
        data_dir,
        lambda database: create_key(
            database,
            tenant=tenant,
            name=name,
            scopes=scopes,
            collections=collections or None,
            expires_at=expires_at,
            limits=limits,
        ),
    )
    _print_new(key, token)
    return 0


def listing(config: Config, data_dir: Path, *, tenant: str | None, as_json: bool) -> int:
    """Print a line for each key."""
    keys = _with_database(config, data_dir, lambda database: list_keys(database, tenant))
    if as_json:
        click.echo(msgspec.json.encode(keys))
        return 0
    now = dt.datetime.now(dt.UTC)
    for key in keys:
        where = "all" if key.collections is None else ",".join(key.collections)
        click.echo(
            f"{key.id}  {key.tenant:12} {','.join(key.scopes):20} {where:16}"
            f" {_state(key, now):24} {key.name}{_limits(key.limits)}"
        )
    if not keys:
        click.echo("there are no keys: only clients on this machine are served", err=True)
    return 0


def rotate(config: Config, data_dir: Path, *, key_id: str, grace_s: float) -> int:
    """Make a key like another, which ends after a while."""
    key, token = _with_database(
        config, data_dir, lambda database: rotate_key(database, key_id, grace_s=grace_s)
    )
    _print_new(key, token)
    click.echo(f"key {key_id} is good for {grace_s:.0f} s more", err=True)
    return 0


def limit(config: Config, data_dir: Path, *, key_id: str, limits: KeyLimits) -> int:
    """Give a key other limits."""
    key = _with_database(config, data_dir, lambda database: limit_key(database, key_id, limits))
    click.echo(f"key {key.id} ({key.name}):{_limits(limits) or ' limited as others'}", err=True)
    return 0


def revoke(config: Config, data_dir: Path, *, key_id: str) -> int:
    """End a key."""
    key = _with_database(config, data_dir, lambda database: revoke_key(database, key_id))
    click.echo(f"revoked: {key.id} ({key.name})", err=True)
    return 0


def _with_database(config: Config, data_dir: Path, use: Callable[[Database], Awaitable[T]]) -> T:
    async def connected(dsn: str) -> T:
        await prepare_database(dsn, config.database.connect_timeout_s)
        database = Database(dsn, config.database, size=1)
        await database.open()
        try:
            return await use(database)
        finally:
            await database.close()

    with database_here(config, data_dir) as dsn:
        return asyncio.run(connected(dsn))


def _print_new(key: Key, token: str) -> None:
    """The token alone goes to standard output, for scripts."""
    ends = "" if key.expires_at is None else f", until {key.expires_at:%Y-%m-%d %H:%M} UTC"
    about = f"key {key.id} of tenant {key.tenant} for {', '.join(key.scopes)}{ends}"
    click.echo(f"{about}; this is the only time its token is shown:", err=True)
    click.echo(token)


def _limits(limits: KeyLimits) -> str:
    """Return a key's own limits, as they are given on the command line."""
    return "".join(f"  {name}={most}" for name, most in msgspec.to_builtins(limits).items())


def _state(key: Key, now: dt.datetime) -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "valid"
    if key.expires_at <= now:
        return f"expired {key.expires_at:%Y-%m-%d}"
    return f"until {key.expires_at:%Y-%m-%d %H:%M}"
