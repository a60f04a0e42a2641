"""The pool: a changed server is noticed early, and failures have names."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import asyncpg

from ragserve.store.pool import Database


def end_other_sessions(dsn: str) -> None:
    """End all sessions of a database and return when they are gone, blocking the event loop."""

    async def end() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.fetch(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, end()).result()


async def test_idle_connections_that_the_server_closed_are_replaced(
    database: Database, dsn: str
) -> None:
    """A restart of the server costs no request an error once the server is back."""
    async with database.connection(), database.connection():
        pass
    end_other_sessions(dsn)
    answers = await asyncio.gather(*(database.fetchval(f"SELECT {n}") for n in range(8)))
    assert answers == list(range(8))


async def test_a_closed_connection_is_noticed_by_a_transaction(
    database: Database, dsn: str
) -> None:
    """What is more than one statement is not begun over a dead connection, either."""
    async with database.connection():
        pass
    end_other_sessions(dsn)
    async with database.connection() as connection, connection.transaction():
        assert await connection.fetchval("SELECT 1") == 1
    assert repr(database).startswith("<Database 0 busy")
