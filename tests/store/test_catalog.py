"""The catalog: what it says of a collection is true, and nothing is asked twice."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest

from ragserve.config import Config
from ragserve.errors import NotFound, Unavailable
from ragserve.store.catalog import RECHECK_S, TRUST_S, Catalog
from ragserve.store.collections import Collection, delete_collection
from ragserve.store.pool import Database
from tests.conftest import make_collection

LATER = RECHECK_S + 0.01


class Counting(Database):
    """Counts look-ups, and lets a test do something right after one has read."""

    def __init__(self, dsn: str, config: Config) -> None:
        super().__init__(dsn, config.database, size=2)
        self.lookups = 0
        self.after_reading = lambda: None

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        self.lookups += 1
        row = await super().fetchrow(sql, *args)
        self.after_reading()
        return row


@pytest.fixture
async def counting(dsn: str, config: Config) -> Counting:
    """A database with a collection named default, and a count of look-ups."""
    database = Counting(dsn, config)
    await database.open()
    await make_collection(database, "default")
    database.lookups = 0
    return database


def rewind(catalog: Catalog, seconds: float) -> None:
    """Let ``seconds`` pass since every look-up and sign of life."""
    catalog._heard_at -= seconds
    catalog._listening_since -= seconds
    for known in catalog._known.values():
        known.checked_at -= seconds
        known.tried_at -= seconds


async def raise_version(database: Database) -> None:
    await database.execute("UPDATE collections SET version = version + 1")


async def test_while_listening_a_look_up_lasts(counting: Counting) -> None:
    """One look-up, shared by all who ask at once; then notifications keep it current."""
    catalog = Catalog(counting)
    await catalog.reload()
    first, *others = await asyncio.gather(*(catalog.get("default", "default") for _ in range(50)))
    assert all(other is first for other in others)
    rewind(catalog, LATER)
    catalog.changed(f"{first.id} 7")
    assert (await catalog.get("default", "default")).version == 7
    catalog.changed(f"{first.id} 6")  # out of order
    assert (await catalog.get("default", "default")).version == 7
    assert counting.lookups == 1
    await counting.close()


async def test_silence_is_not_trusted(counting: Counting) -> None:
    """Without a sign of life a collection is looked up again, and a new version is found."""
    catalog = Catalog(counting)
    await catalog.reload()
    assert (await catalog.get("default", "default")).version == 0
    await raise_version(counting)
    rewind(catalog, TRUST_S + 0.01)
    assert catalog.current("default", "default", time.monotonic()) is None
    assert (await catalog.get("default", "default")).version == 1
    assert counting.lookups == 2
    rewind(catalog, LATER)
    catalog.heard(time.monotonic())
    assert (await catalog.get("default", "default")).version == 1
    assert counting.lookups == 2
    await counting.close()


async def test_a_new_connection_may_have_missed_something(counting: Counting) -> None:
    """After a reconnection everything known is looked up once more."""
    catalog = Catalog(counting)
    await catalog.reload()
    await catalog.get("default", "default")
    await raise_version(counting)
    rewind(catalog, LATER)
    await catalog.reload()
    assert (await catalog.get("default", "default")).version == 1
    await counting.close()


async def test_a_change_during_a_look_up_is_not_lost(counting: Counting) -> None:
    """A notification that overtakes the row it is about still counts."""
    catalog = Catalog(counting)
    await catalog.reload()
    number = await counting.fetchval("SELECT id FROM collections")
    counting.after_reading = lambda: catalog.changed(f"{number} 3")
    assert (await catalog.get("default", "default")).version == 3
    assert catalog._news == {}
    rewind(catalog, TRUST_S + 0.01)
    counting.after_reading = lambda: catalog.changed(f"{number} -1")
    with pytest.raises(NotFound):
        await catalog.get("default", "default")
    await counting.close()


async def test_a_deleted_collection_is_gone(counting: Counting) -> None:
    """Once its end is known, a collection is not found, and another of its name is."""
    catalog = Catalog(counting)
    await catalog.reload()
    old = await catalog.get("default", "default")
    await delete_collection(counting, old)
    catalog.changed(f"{old.id} -1")
    with pytest.raises(NotFound):
        await catalog.get("default", "default")
    new: Collection = await make_collection(counting, "default")
    assert (await catalog.get("default", "default")).id == new.id != old.id
    assert repr(catalog) == "<Catalog 1 collections>"
    await counting.close()


async def test_whoever_changes_it_need_not_wait(counting: Counting) -> None:
    """A collection that this process has just changed is looked up at the next question."""
    catalog = Catalog(counting)
    await catalog.reload()
    catalog.doubt(await catalog.get("default", "default"))
    await raise_version(counting)
    assert (await catalog.get("default", "default")).version == 1
    await counting.close()


async def test_without_the_database_the_last_word_stands(counting: Counting) -> None:
    """What is known is still said, and the database is not asked at every question."""
    catalog = Catalog(counting)
    await catalog.reload()
    known = await catalog.get("default", "default")
    await counting.close()
    rewind(catalog, TRUST_S + 0.01)
    counting.lookups = 0
    for _ in range(10):
        assert await catalog.get("default", "default") == known
    assert counting.lookups == 1
    with pytest.raises(Unavailable):
        await catalog.get("default", "unknown")
