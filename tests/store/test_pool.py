"""The pool: a changed server is noticed early, and failures have names."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import msgspec
import pytest

from ragserve.config import Config
from ragserve.errors import Unavailable
from ragserve.store import pool
from ragserve.store.pool import SILENT, Database


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


async def test_a_silent_server_is_not_waited_for(database: Database) -> None:
    """Who has a connection, who waits for one and who comes are told so at once, all of them."""
    waiting = [asyncio.create_task(database.execute("SELECT pg_sleep(600)")) for _ in range(6)]
    async with asyncio.timeout(30):
        while database.busy < database.size:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        database.fell_silent()
        assert database.silent
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, Unavailable)
            assert SILENT in outcome.message
        with pytest.raises(Unavailable, match=SILENT):
            await database.execute("SELECT 1")
        database.spoke()
        assert await database.fetchval("SELECT 1") == 1
    assert repr(database).startswith("<Database 0 busy")


async def test_who_cannot_connect_does_not_try_all_the_time(
    dsn: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While there is nobody to connect to one attempt in a while is made, for all who ask."""
    attempts = 0

    async def refused(*_args: object, **_options: object) -> object:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError("nobody there")

    database = Database(dsn, config.database, size=2)
    await database.open(at_once=False)
    with monkeypatch.context() as patch:
        patch.setattr(pool, "dial", refused)
        patch.setattr(pool, "REDIAL_S", (60.0, 60.0))
        asked = [database.fetchval("SELECT 1") for _ in range(20)]
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, Unavailable)
            assert "nobody there" in outcome.message
        assert attempts <= database.size
    database._redial_at = 0.0
    assert await database.fetchval("SELECT 1") == 1
    await database.close()


async def test_a_statement_that_takes_too_long(dsn: str, config: Config) -> None:
    """The server gives it up, which is no fault of this program's, and no connection's either."""
    settings = msgspec.structs.replace(config.database, statement_timeout_s=0.05)
    hasty = Database(dsn, settings, size=1)
    await hasty.open()
    pid = await hasty.fetchval("SELECT pg_backend_pid()")
    with pytest.raises(Unavailable, match="statement timeout"):
        await hasty.execute("SELECT pg_sleep(60)")
    assert await hasty.fetchval("SELECT pg_backend_pid()") == pid
    await hasty.close()


async def test_who_waits_in_vain_leaves_the_connections_alone(dsn: str, config: Config) -> None:
    """A pool that is used up is no reason to replace its connections."""
    settings = msgspec.structs.replace(config.database, acquire_timeout_s=0.05)
    small = Database(dsn, settings, size=1)
    await small.open()
    async with small.connection() as connection:
        pid = connection.get_server_pid()
        with pytest.raises(Unavailable, match="no answer within"):
            await small.execute("SELECT 1")
    assert await small.fetchval("SELECT pg_backend_pid()") == pid
    await small.close()


@pytest.mark.parametrize("rounds", [50, pytest.param(100_000, marks=pytest.mark.nightly)])
async def test_cancelled_statements_leave_no_rows_behind(database: Database, rounds: int) -> None:
    """Ten of twenty reads are cancelled at any moment, the others get their own rows."""
    rng = random.Random(3)

    async def read(number: int) -> None:
        rows = await database.fetch("SELECT $1::int AS n FROM generate_series(1, 3)", number)
        assert [row["n"] for row in rows] == [number] * 3

    for _ in range(rounds):
        tasks = [asyncio.create_task(read(rng.randrange(10**6))) for _ in range(20)]
        for task in rng.sample(tasks, 10):
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            result is None or isinstance(result, asyncio.CancelledError) for result in results
        ), results
    assert repr(database).startswith("<Database 0 busy")
