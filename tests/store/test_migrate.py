"""Migrations: once, in order, by one process at a time, and never backwards."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from ragserve.errors import ConfigurationError, Unavailable
from ragserve.store.migrate import migrations, pending_migrations, prepare_database


async def test_an_empty_database_becomes_a_store(empty_dsn: str) -> None:
    """All migrations are applied once, with their tables."""
    assert await prepare_database(empty_dsn, 5.0) == migrations()
    assert await prepare_database(empty_dsn, 5.0) == []
    connection = await asyncpg.connect(empty_dsn)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    tenants = await connection.fetch(
        "SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant'"
    )
    await connection.close()
    names = {row["tablename"] for row in tables}
    of_users = {"collections", "documents", "deletions", "chunks", "jobs", "keys"}
    assert names == {"migrations", *of_users}
    assert {row["table_name"] for row in tenants} == names - {"migrations"}


async def test_processes_that_start_together_migrate_once(empty_dsn: str) -> None:
    """Of several processes one applies each migration, the others wait and find it done."""
    results = await asyncio.gather(*(prepare_database(empty_dsn, 5.0) for _ in range(4)))
    assert sorted(len(applied) for applied in results) == [0, 0, 0, len(migrations())]


async def test_a_newer_database_is_refused(dsn: str) -> None:
    """A release never works on a database that a newer one has migrated."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO migrations (number, name) VALUES (9999, 'future')")
    with pytest.raises(ConfigurationError, match=r"migration 9999.* newer release"):
        await pending_migrations(connection)
    await connection.close()


async def test_an_unreachable_server_is_named() -> None:
    """Without a server the error says so, and that trying again may help."""
    with pytest.raises(Unavailable, match="database: cannot connect"):
        await prepare_database("postgresql://127.0.0.1:1/none", 1.0)
