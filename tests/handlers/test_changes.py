"""Changes and questions on few connections: however many documents come, questions are answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from ragserve.pipeline import gates
from tests.conftest import Api, configured, serving

TEXT = "Lunch is at noon."
UPLOADS = 40


@pytest.fixture
async def narrow(tmp_path: Path, dsn: str) -> AsyncIterator[Api]:
    """A server with four connections, and a document."""
    async with serving(configured(database__connections=4), tmp_path, dsn) as api:
        await api.ingest({"id": "lunch", "text": TEXT})
        yield api


async def test_uploads_leave_connections_to_questions(narrow: Api, dsn: str) -> None:
    """While uploads hang, searches are whole, keys are looked up, and nothing waits for them."""
    connection = await asyncpg.connect(dsn)
    services = narrow.services
    async with asyncio.timeout(60), connection.transaction():
        await connection.execute("LOCK TABLE jobs IN EXCLUSIVE MODE")
        uploads = [
            asyncio.create_task(narrow.post("/v1/documents", {"id": f"d{n}", "text": "Words."}))
            for n in range(UPLOADS)
        ]
        while services.changes.waiting < UPLOADS - 1:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        assert services.changes.used == 1
        searches = [narrow.post("/v1/search", {"query": f"lunch {n}"}) for n in range(20)]
        for status, found in await asyncio.gather(*searches):
            assert (status, found["results"][0]["text"]) == (200, TEXT)
            assert "degraded" not in found
        assert (await narrow.get("/v1/keys"))[0] == 200
        assert (await narrow.get("/health"))[0] == 200
        assert services.changes.waiting == UPLOADS - 1
    await connection.close()
    assert {status for status, _ in await asyncio.gather(*uploads)} == {202}
    assert (services.changes.used, services.changes.waiting) == (0, 0)


async def test_too_many_are_refused_at_the_door(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is known how long a change takes, those who would wait for too long get a 503."""
    monkeypatch.setattr(gates, "CHANGING_WAIT_S", 0.001)
    seen: Counter[int] = Counter()

    async def upload(api: Api, number: int) -> None:
        body = {"id": f"d{number}", "text": "Words."}
        async with api.client.post("/v1/documents", json=body) as response:
            seen[response.status] += 1
            if response.status == 503:
                assert (await response.json())["error"]["code"] == "overloaded"
                assert int(response.headers["Retry-After"]) >= 1

    async with serving(configured(database__connections=4), tmp_path, dsn, ingest=False) as api:
        for number in range(60):
            await upload(api, number)
        assert set(seen) == {202}
        async with asyncio.timeout(60):
            await asyncio.gather(*(upload(api, number) for number in range(60, 160)))
    assert set(seen) == {202, 503}
