"""A primary that dies and a standby that takes over; searches on a standby that lags."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import msgspec
import numpy as np
import pytest
from prometheus_client import REGISTRY

from ragserve.config import DatabaseConfig
from ragserve.errors import Unavailable
from ragserve.store.collections import Collection, ensure_collection
from ragserve.store.listen import Listener
from ragserve.store.migrate import prepare_database
from ragserve.store.pool import Database
from ragserve.store.replica import Searches
from ragserve.store.search import nearest_passages
from tests.conftest import own_directory
from tests.postgres_pair import Node, postgres_pair

Pair = tuple[Node, Node]
RECOVERY_S = 5.0


@pytest.fixture
def pair(postgres: str) -> Iterator[Pair]:
    """A primary and its standby. (The embedded server has prepared its programs.)"""
    assert postgres
    with own_directory() as directory:
        directory.chmod(0o755)
        with postgres_pair(directory) as nodes:
            yield nodes


@asynccontextmanager
async def opened(dsn: str, *, at_once: bool = True) -> AsyncIterator[Database]:
    database = Database(dsn, DatabaseConfig(dsn=dsn, acquire_timeout_s=2.0), size=4)
    await database.open(at_once=at_once)
    try:
        yield database
    finally:
        await database.close()


def of_both(pair: Pair) -> str:
    """Return the address of whichever is the primary."""
    first, second = pair
    return f"postgresql://postgres@127.0.0.1:{first.port},127.0.0.1:{second.port}/postgres"


def used(result: str) -> float:
    return REGISTRY.get_sample_value("ragserve_replica_reads_total", {"result": result}) or 0.0


async def test_the_standby_takes_over(pair: Pair) -> None:
    """Requests fail while there is no primary, and work again once there is; writes, too."""
    first, second = pair
    await prepare_database(of_both(pair), 10.0)
    async with opened(of_both(pair)) as database:
        write = "INSERT INTO tally VALUES ($1) RETURNING number"
        await database.execute("CREATE TABLE tally (number int)")
        written = [await database.fetchval(write, number) for number in range(20)]
        await standby_has_all(database)
        await asyncio.to_thread(first.stop)
        with pytest.raises(Unavailable):
            await database.fetchval(write, 100)
        await asyncio.to_thread(second.promote)
        async with asyncio.timeout(RECOVERY_S):
            while True:
                try:
                    written.append(await database.fetchval(write, 200))
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        found = await database.fetch("SELECT number FROM tally ORDER BY number")
        assert [row["number"] for row in found] == written


async def test_a_primary_that_takes_no_writes_any_more(pair: Pair) -> None:
    """Still there, all connections to it open: writes go to the new one, and so do listeners.

    The first write may be refused (25006).
    """
    first, second = pair
    await prepare_database(of_both(pair), 10.0)
    connections: asyncio.Queue[None] = asyncio.Queue()
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def connected() -> None:
        connections.put_nowait(None)

    async with opened(of_both(pair)) as database, asyncio.timeout(30):
        write = "INSERT INTO tally VALUES ($1)"
        await database.execute("CREATE TABLE tally (number int)")
        await standby_has_all(database)
        listener = Listener(database, {"news": heard.put_nowait}, connected, probe_s=0.1)
        listener.start()
        await connections.get()
        await asyncio.to_thread(second.promote)
        old = await asyncpg.connect(first.dsn())
        await old.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await old.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(RECOVERY_S):
            await connections.get()
            while True:
                try:
                    await database.execute(write, 1)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        for number in range(2, 10):
            await database.execute(write, number)
        await database.execute("SELECT pg_notify('news', 'from the new primary')")
        assert await heard.get() == "from the new primary"
        assert await old.fetchval("SELECT count(*) FROM tally") == 0
        await old.close()
        await listener.stop()


async def standby_has_all(database: Database) -> None:
    """Wait until the standby has what the primary has."""
    async with asyncio.timeout(20):
        caught_up = "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn = sent_lsn"
        while not await database.fetchval(caught_up):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.05)


async def test_searches_go_to_a_standby_that_has_caught_up(pair: Pair) -> None:
    """One that lags, is away or has no such table is passed over: no answer is older for it."""
    first, second = pair
    await prepare_database(first.dsn(), 10.0)
    vector = np.eye(384, dtype=np.float32)[0]
    async with opened(first.dsn()) as primary, opened(second.dsn(), at_once=False) as replica:
        searches = Searches(primary, replica)
        collection = await stored(primary, vector)
        async with asyncio.timeout(20):
            while await version_at(second, collection) != collection.version:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

        async def search(asked: Collection) -> list[str]:
            found = await nearest_passages(searches, asked, vector, top_k=5)
            return [passage.text for passage in found]

        before = {result: used(result) for result in ("used", "behind", "failed")}
        assert await search(collection) == ["the passage"]
        assert used("used") - before["used"] == 1
        await replica.execute("SELECT pg_wal_replay_pause()")
        await primary.execute("UPDATE collections SET version = version + 1")
        await primary.execute(f"UPDATE {collection.table} SET text = 'the new passage'")
        newer = msgspec.structs.replace(collection, version=collection.version + 1)
        assert await search(newer) == ["the new passage"]
        assert used("behind") - before["behind"] == 1
        await asyncio.to_thread(second.stop)
        for _ in range(3):
            assert await search(newer) == ["the new passage"]
        assert used("failed") - before["failed"] == 1, "it is left alone for a while"
        assert used("used") - before["used"] == 1


async def stored(database: Database, vector: np.ndarray) -> Collection:
    """Return a collection with one passage."""
    collection = await ensure_collection(
        database, "default", "papers", language="en", embedder="test", dimensions=384
    )
    key = await database.fetchval(
        "INSERT INTO documents (tenant, collection_id, id, title, metadata, content_hash, job_id,"
        " chunks, version) VALUES ('default', $1, 'd', 'Title', '{}', '', 0, 1, 0) RETURNING key",
        collection.id,
    )
    await database.execute(
        f"INSERT INTO {collection.table}"
        " (tenant, collection_id, document_key, position, text, embedding)"
        " VALUES ('default', $1, $2, 0, 'the passage', $3)",
        collection.id,
        key,
        vector,
    )
    return collection


async def version_at(node: Node, collection: Collection) -> int:
    """Return the collection's version there, -1 if it is not there yet."""
    connection = await asyncpg.connect(node.dsn())
    try:
        found = await connection.fetchval(
            "SELECT version FROM collections WHERE id = $1 AND"
            f" (SELECT count(*) FROM {collection.table}) = 1",
            collection.id,
        )
    except asyncpg.UndefinedTableError:
        return -1
    finally:
        await connection.close()
    return -1 if found is None else int(found)
