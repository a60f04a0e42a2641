"""Numbered migrations, each in one transaction, one process at a time.

``migrations/NNNN_name.sql`` is applied once and in order. A session-level advisory lock keeps two
hosts from migrating at once.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import asyncpg

from ragserve.errors import ConfigurationError, Unavailable
from ragserve.store.dial import UNREACHABLE, dial

LOCK = 0x7261_6773  # "rags"
MIN_SERVER = 140_000
MIN_PGVECTOR = (0, 8)


class Migration(NamedTuple):
    """A numbered file of SQL."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """Return all migrations in order."""
    found = []
    for file in files("ragserve.store").joinpath("migrations").iterdir():
        stem, dot, suffix = file.name.partition(".")
        if dot and suffix == "sql":
            number, _, name = stem.partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found)


async def migrate(connection: asyncpg.Connection) -> list[Migration]:
    """Bring the database up to date; return what was applied.

    Raises ``ConfigurationError`` if the server is too old, lacks pgvector, or was migrated by a
    newer ragserve.
    """
    await check_server(connection)
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations ("
            " number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        pending = await pending_migrations(connection)
        for migration in pending:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO migrations (number, name) VALUES ($1, $2)",
                    migration.number,
                    migration.name,
                )
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)
    return pending


async def pending_migrations(connection: asyncpg.Connection) -> list[Migration]:
    """Return what ``migrate`` would apply."""
    known = migrations()
    if not await connection.fetchval("SELECT to_regclass('migrations') IS NOT NULL"):
        return known
    applied = {row["number"] for row in await connection.fetch("SELECT number FROM migrations")}
    newest = max(applied, default=0)
    if newest > known[-1].number:
        raise ConfigurationError(
            f"the database has migration {newest}, this ragserve knows {known[-1].number}: "
            "it was migrated by a newer release"
        )
    return [migration for migration in known if migration.number not in applied]


async def check_server(connection: asyncpg.Connection) -> None:
    """Refuse a server that cannot hold the store, saying what it lacks."""
    number = int(await connection.fetchval("SHOW server_version_num"))
    if number < MIN_SERVER:
        raise ConfigurationError(
            f"PostgreSQL {await connection.fetchval('SHOW server_version')} is too old: "
            f"ragserve needs {MIN_SERVER // 10_000} or newer"
        )
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(f"the database's encoding is {encoding}: ragserve needs UTF8")
    wanted = ".".join(map(str, MIN_PGVECTOR))
    version = await connection.fetchval(
        "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    )
    if version is None:
        available = await connection.fetchval(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'"
        )
        if available is None:
            raise ConfigurationError(
                f"PostgreSQL has no pgvector: install its package (pgvector {wanted} or newer)"
            )
        try:
            await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigurationError(
                "pgvector is installed but not enabled here, and this user may not enable it: "
                "run CREATE EXTENSION vector as a superuser"
            ) from error
        except asyncpg.UniqueViolationError:
            pass  # another process created it in the same moment
        version = available
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_PGVECTOR:
        raise ConfigurationError(
            f"pgvector {version} is too old: ragserve needs {wanted} or newer "
            "(ALTER EXTENSION vector UPDATE, after installing it)"
        )


async def prepare_database(dsn: str, connect_timeout_s: float) -> list[Migration]:
    """Connect once, bring the database up to date, return what was applied."""
    try:
        connection = await dial(dsn, timeout=connect_timeout_s)
    except UNREACHABLE as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"database: cannot connect: {reason}") from error
    try:
        return await migrate(connection)
    finally:
        await connection.close(timeout=1.0)
