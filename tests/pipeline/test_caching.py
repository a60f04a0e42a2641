"""A hot question expires everywhere at once: one computation, whoever asks and however many."""

from __future__ import annotations

import asyncio
import time

import pytest

from ragserve.cache import Answers, elsewhere
from ragserve.cache.directives import ANY
from ragserve.cache.elsewhere import Elsewhere
from ragserve.cache.shared import SharedCache
from ragserve.config import CacheConfig, RedisConfig
from ragserve.flow.admission import Admission
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.flight import Flight
from ragserve.flow.principal import OWNER
from ragserve.pipeline.caching import Caching
from ragserve.pipeline.events import Event
from ragserve.pipeline.making import Answered, Made
from ragserve.pipeline.question import Asked
from ragserve.schema import SearchRequest
from ragserve.store.collections import Collection
from ragserve.store.redis import Redis
from tests.redis_server import redis_server

COLLECTION = Collection(1, "default", "default", "en", "hashing-384", 384, 5)
ASKED = Asked(SearchRequest("when is lunch?"), COLLECTION, 6, "hybrid", None)
KEY = bytes(20)
WORKERS = 4
ASKERS = 10_000


@pytest.mark.parametrize(("with_redis", "most"), [(True, 1), (False, WORKERS)])
async def test_ten_thousand_wait_for_one_computation(
    with_redis: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Redis one of four workers computes, without it each at most once; all get an answer."""
    # All four share one event loop here, which ten thousand may keep busy for longer than a lease.
    monkeypatch.setattr(elsewhere, "LEASE_MS", 60_000)
    computed = 0
    all_wait = asyncio.Event()

    async def compute(asked: Asked, context: Context, flight: Flight[Event, str]) -> Made[str]:
        nonlocal computed
        computed += 1
        await all_wait.wait()
        return Made("noon", whole=True, negative=False, version=5)

    async def ask(worker: Caching[str]) -> Answered[str]:
        context = Context(OWNER, deadline_after(60.0, time.monotonic()))
        return await worker.ask(ASKED, KEY, context, ANY)

    with redis_server() as server:
        redis = Redis(RedisConfig(url=server.url, timeout_ms=10_000))
        workers = []
        for _ in range(WORKERS):
            # Of one process, but with nothing in common except what lies in Redis.
            shared = Elsewhere(SharedCache(redis, "test:")) if with_redis else None
            answers = Answers(CacheConfig(), lambda *_: COLLECTION)
            entrance = Admission(())
            workers.append(Caching(answers, shared, compute, lambda text: text, 60.0, entrance))
        async with asyncio.timeout(60):
            asking = [asyncio.create_task(ask(workers[n % WORKERS])) for n in range(ASKERS)]
            expected = f"{ASKERS // WORKERS} aboard"
            while not all(expected in repr(one) for one in workers):  # noqa: ASYNC110 - no signal
                await asyncio.sleep(0.001)
            all_wait.set()
            answered = await asyncio.gather(*asking)
        assert computed == most
        said = {one.value or one.entry.prepared.body for one in answered if one.value or one.entry}
        assert said <= {"noon", b'"noon"'}
        assert len(answered) == ASKERS
        for worker in workers:
            if worker._elsewhere is not None:
                await worker._elsewhere.shared.close()
        await redis.close()
