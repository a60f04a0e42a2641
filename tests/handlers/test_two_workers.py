"""Two workers and a Redis between them: one computes, both answer, and nobody needs it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ragserve.errors import Unavailable
from ragserve.metrics import EMBEDDING_CACHE
from ragserve.store.redis import PAUSE_S
from tests.conftest import Api, configured, serving
from tests.handlers.test_ask import OFFICE, TRAVEL
from tests.handlers.test_cache import CHANGED, LUNCH, Answering, ask, made
from tests.handlers.test_stream import counted, frames
from tests.proxy import Proxy, running
from tests.redis_server import RedisServer, redis_server

SHARED = "ragserve; hit; detail=redis"
LOCAL = "ragserve; hit; detail=memory"


class Two(NamedTuple):
    """Workers on one database and one Redis."""

    one: Api
    other: Api


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
async def two(tmp_path: Path, dsn: str, redis: RedisServer) -> AsyncIterator[Two]:
    config = configured(redis__url=redis.url, redis__timeout_ms=10_000)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(serving(config, tmp_path, dsn))
        other = await stack.enter_async_context(serving(config, tmp_path, dsn, ingest=False))
        yield Two(one, other)


async def written(api: Api) -> None:
    """Wait until what was to be stored in Redis is there."""
    writes = api.services.pipeline._questions._elsewhere.shared._writes
    if writes:
        await asyncio.wait(writes, timeout=30)


async def known(api: Api, version: int) -> None:
    """Wait until a worker knows the version of the default collection."""
    async with asyncio.timeout(30):
        while (await api.services.catalog.get("default", "default")).version < version:
            assert await api.services.changed.wait(30)


@pytest.mark.parametrize("path", ["/v1/query", "/v1/search"])
async def test_what_one_computed_the_other_knows(two: Two, path: str) -> None:
    """The answer comes from Redis once, then from memory, with its age; streams, too."""
    await two.one.ingest(OFFICE, TRAVEL)
    await known(two.other, 2)
    status, first = await ask(two.one, LUNCH, path)
    assert status == "ragserve; fwd=miss; stored"
    await written(two.one)
    for expected in (SHARED, LOCAL):
        status, again = await ask(two.other, LUNCH, path)
        assert status == expected
        assert again == {**first, **({"cache": "hit"} if path == "/v1/query" else {})}


async def test_a_streaming_client_gets_what_another_worker_computed(two: Two) -> None:
    """An answer from Redis is told as sources, words, end."""
    await two.one.ingest(OFFICE)
    await known(two.other, 1)
    _, whole = await ask(two.one, LUNCH)
    await written(two.one)
    body = {**LUNCH, "stream": True}
    async with two.other.client.post("/v1/query", json=body) as response:
        assert response.headers["Cache-Status"] == SHARED
        events = [event async for event in frames(response)]
    assert [name for name, _ in events] == ["sources", "delta", "end"]
    assert (events[1][1]["text"], events[2][1]["cache"]) == (whole["answer"], "hit")


async def test_only_if_cached_looks_into_redis(two: Two) -> None:
    """And computes nothing; what is older than max-age is computed anew elsewhere, too."""
    await two.one.ingest(OFFICE)
    await known(two.other, 1)
    only = {"Cache_Control": "only-if-cached"}
    async with two.other.client.post(
        "/v1/query", json=LUNCH, headers={"Cache-Control": "only-if-cached"}
    ) as response:
        assert response.status == 504
    await ask(two.one, LUNCH)
    await written(two.one)
    status, _ = await ask(two.other, LUNCH, Cache_Control="max-age=0")
    assert status == "ragserve; fwd=request; stored"
    await ask(two.one, {"query": "hotels"})
    await written(two.one)
    status, _ = await ask(two.other, {"query": "hotels"}, **only)
    assert status == SHARED


async def test_a_change_reaches_both(two: Two) -> None:
    """After a change neither gives what was known before."""
    await two.one.ingest(OFFICE)
    await known(two.other, 1)
    for api in two:
        await ask(api, LUNCH)
        await written(api)
    await two.one.ingest(CHANGED)
    await known(two.other, 2)
    for api in two:
        _, answer = await ask(api, LUNCH)
        assert answer["answer"] == "Lunch is served at one o'clock from now on. [1]"


async def test_deleting_reaches_both_and_redis(two: Two) -> None:
    """Answers that one worker had deleted are not given by the other, nor by Redis."""
    await two.one.ingest(OFFICE)
    await known(two.other, 1)
    for api in two:
        await ask(api, LUNCH)
        await written(api)
    await two.one.delete("/v1/cache")
    await known(two.other, 2)
    assert (await ask(two.other, LUNCH))[0].startswith("ragserve; fwd=miss")


async def test_one_of_them_computes(two: Two) -> None:
    """The same question to both is computed once; a failure of one hands over to the other."""
    await two.one.ingest(OFFICE)
    await known(two.other, 1)
    answerings = []
    for api in two:
        answering = Answering()
        api.services.pipeline._questions._making._compute = answering
        answerings.append(answering)
    asking = {asyncio.create_task(api.post("/v1/query", LUNCH)) for api in two for _ in range(5)}
    starting = [asyncio.create_task(one.asked.wait()) for one in answerings]
    async with asyncio.timeout(30):
        await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
        first, second = sorted(answerings, key=lambda one: not one.asked.is_set())
        assert not second.asked.is_set()
        # One who came after the failure would start anew.
        while not all(  # noqa: ASYNC110 - no signal
            "5 aboard" in repr(api.services.pipeline._questions) for api in two
        ):
            await asyncio.sleep(0.01)
        first.outcomes.put_nowait(Unavailable("gone"))
        await second.asked.wait()
        second.outcomes.put_nowait(made("noon"))
        results = await asyncio.gather(*asking, *starting)
    statuses = [result[0] for result in results if isinstance(result, tuple)]
    assert sorted(statuses) == [200] * 5 + [503] * 5
    assert (first.outcomes.qsize(), second.outcomes.qsize()) == (0, 0)


async def test_vectors_of_questions_are_shared(two: Two) -> None:
    """A question that was embedded by one worker is not embedded by the other."""
    await two.one.ingest(OFFICE)
    await known(two.other, 1)
    question: dict[str, Any] = {"query": "bicycle cellar at night", "mode": "dense"}
    _, first = await ask(two.one, question, "/v1/search")
    await written(two.one)
    before = counted(EMBEDDING_CACHE, "shared")
    # Another search, so that it is not the answer that is known.
    _, again = await ask(two.other, {**question, "top_k": 3}, "/v1/search")
    assert counted(EMBEDDING_CACHE, "shared") == before + 1
    assert again["results"] == first["results"][:3]


async def test_without_redis_all_goes_on(tmp_path: Path, dsn: str, redis: RedisServer) -> None:
    """Killed, absent and back: never an error; /health says what is the matter."""
    config = configured(redis__url=redis.url, redis__timeout_ms=10_000)
    async with serving(config, tmp_path, dsn) as api:
        await api.ingest(OFFICE)
        assert (await api.get("/health"))[1]["dependencies"]["redis"]["status"] == "ok"
        redis.kill()
        for number in range(8):
            await ask(api, {"query": f"lunch {number}"})
        status, health = await api.get("/health")
        assert (status, health["status"]) == (200, "degraded")
        assert health["dependencies"]["redis"]["status"] == "failing"
        redis.start()
        recovering = api.services.redis._recovering
        assert recovering is not None
        await asyncio.wait_for(recovering, 60)
        await ask(api, {"query": "lunch again"})
        await written(api)
        assert await api.services.redis.call(lambda client: client.dbsize()) >= 1


class Slowed(Proxy):
    """A proxy whose replies come late."""

    delay_s = 0.0

    async def reply(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        writer.write(data)


async def test_a_slow_redis_is_waited_for_up_to_its_deadline(
    tmp_path: Path, dsn: str, redis: RedisServer
) -> None:
    """Slow, it is used; slower than redis.timeout_ms, it is left alone; all are answered."""
    async with running(Slowed(redis.port)) as slow:
        config = configured(redis__url=f"redis://127.0.0.1:{slow.port}", redis__timeout_ms=500)
        async with serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE)
            slow.delay_s = 0.02
            await ask(api, LUNCH)
            await written(api)
            assert await api.services.redis.call(lambda client: client.dbsize()) >= 1
            slow.delay_s = 60.0
            for number in range(6):
                await ask(api, {"query": f"lunch {number}"})
                await asyncio.sleep(PAUSE_S)
            assert not api.services.redis.reachable


async def test_a_frozen_redis_costs_no_answers(
    tmp_path: Path, dsn: str, redis: RedisServer
) -> None:
    """A few questions wait for the deadline, the others not at all; all are answered."""
    async with serving(configured(redis__url=redis.url), tmp_path, dsn) as api:
        await api.ingest(OFFICE)
        await ask(api, LUNCH)
        redis.send(signal.SIGSTOP)
        try:
            asking = (ask(api, {"query": f"lunch {number}"}) for number in range(40))
            answers = await asyncio.gather(*asking)
            assert {status for status, _ in answers} == {"ragserve; fwd=miss; stored"}
            assert (await ask(api, LUNCH))[0] == LOCAL
        finally:
            redis.send(signal.SIGCONT)
