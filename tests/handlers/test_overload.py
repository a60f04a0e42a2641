"""More questions than can be answered: each is answered or refused, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from ragserve.flow.deadline import deadline_after
from ragserve.flow.gate import GIVEN_UP
from tests.conftest import Api, configured, serving

QUESTIONS = 300
BURST_S = 0.1
TOGETHER_S = 60.0


@pytest.fixture
async def crowded(tmp_path: Path, dsn: str) -> AsyncIterator[Api]:
    """A server with little patience."""
    config = configured(admission__burst_s=BURST_S, admission__wait_s=0.05, database__connections=2)
    async with serving(config, tmp_path, dsn) as api:
        await api.ingest({"id": "a", "text": "Lunch is at noon. Dinner is at six."})
        yield api


async def test_after_a_burst_all_is_as_before(crowded: Api) -> None:
    """Permits, places in queues, flights and tasks are back when the last client has its answer.

    Some clients leave, some have no time.
    """
    for number in range(60):  # until it knows how long a question takes
        assert (await crowded.post("/v1/query", {"query": f"lunch {number}"}))[0] == 200
    before = len(asyncio.all_tasks())
    statuses: Counter[int] = Counter()

    async def ask(number: int) -> None:
        headers = {"X-Request-Timeout": "0.02"} if number % 5 == 0 else {}
        question = {"query": f"when is dinner number {number}"}
        async with crowded.client.post("/v1/query", json=question, headers=headers) as response:
            await response.read()
            statuses[response.status] += 1

    async with asyncio.timeout(TOGETHER_S):
        clients = [asyncio.create_task(ask(number)) for number in range(QUESTIONS)]
        for number, client in enumerate(clients[::7]):
            if number % 2:
                await asyncio.sleep(0)
            client.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert {type(one) for one in ended if one is not None} == {asyncio.CancelledError}
        assert set(statuses) == {200, 503, 504}, statuses
        pipeline, in_flight = crowded.services.pipeline, crowded.services.in_flight
        assert await in_flight.wait_none(TOGETHER_S)
        # What was asked for by those who left ends in its own turns of the loop.
        while len(asyncio.all_tasks()) > before or len(pipeline._questions._flights):  # noqa: ASYNC110 - they tell nobody
            await asyncio.sleep(0)
    assert [(gate.used, gate.waiting) for gate in pipeline.entrance.gates] == [(0, 0), (0, 0)]
    assert repr(crowded.services.embedder).endswith(", 0 texts waiting>")
    assert (await crowded.post("/v1/query", {"query": "when is breakfast"}))[0] == 200


async def test_whom_newer_ones_overtook_is_told(crowded: Api) -> None:
    """Who has waited for so long that newer ones would come first gets a 503 and when to return."""
    gate = crowded.services.pipeline.entrance.gates[0]
    deadline = deadline_after(TOGETHER_S, asyncio.get_running_loop().time())
    async with asyncio.timeout(TOGETHER_S), AsyncExitStack() as held:
        while gate.used < gate.limit.limit:
            await held.enter_async_context(gate.permit("", deadline))
        asked = crowded.client.post("/v1/query", json={"query": "when is supper"})
        asking = asyncio.ensure_future(asked)
        while not gate.waiting:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        await asyncio.sleep((GIVEN_UP + 1) * BURST_S)  # how long it has waited is what decides
        await held.aclose()
        async with await asking as response:
            error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "overloaded")
    assert response.headers["Retry-After"] == "1"
    assert error["message"].endswith("newer requests come first")
