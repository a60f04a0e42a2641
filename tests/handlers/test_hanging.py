"""Searches that hang in a database that is otherwise well: behind a lock, or on a slow disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import pytest

from ragserve.flow.breaker import Breaker
from ragserve.pipeline import answering
from ragserve.store import replica
from tests.conftest import Api

TEXT = "Lunch is served at noon."


@asynccontextmanager
async def locked(dsn: str) -> AsyncIterator[None]:
    """Keep everybody from all passages."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE chunks")
            yield
    finally:
        await connection.close()


async def test_words_answer_in_time(api: Api, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what the client has left is waited; after a few times nothing, until it works."""
    monkeypatch.setattr(answering, "PATIENCE_S", 0.2)
    monkeypatch.setattr(replica, "HANGS_S", 0.2)
    monkeypatch.setattr(replica, "Breaker", partial(Breaker, base_s=2.0))
    await api.ingest({"id": "lunch", "text": TEXT})
    count = 0

    async def search(**more: object) -> list[str] | None:
        nonlocal count
        count += 1
        status, found = await api.post("/v1/search", {"query": f"lunch {count}", **more})
        assert (status, [one["text"] for one in found["results"]]) == (200, [TEXT])
        degraded: list[str] | None = found.get("degraded")
        return degraded

    async with asyncio.timeout(60):
        assert await search() is None
        async with locked(dsn):
            assert await search(timeout=0.2) == ["database"]
            for _ in range(3):
                assert await search() == ["database"]
            asked = api.services.database
            asked.fetch = _must_not_be_asked
            assert await search() == ["database"]
            del asked.fetch
        while await search() is not None:  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.05)


async def _must_not_be_asked(*_args: object) -> None:
    pytest.fail("the database was asked although its searches hang")
