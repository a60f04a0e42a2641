"""The second tier: aiocache's interface, one pipeline a turn of the loop, failures as misses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from redis.asyncio import Redis as Client

from ragserve.cache import elsewhere
from ragserve.cache.elsewhere import Elsewhere, Kept, Lease
from ragserve.cache.shared import SharedCache
from ragserve.config import RedisConfig
from ragserve.store.redis import Redis
from tests.redis_server import RedisServer, redis_server

KEY = bytes(range(20))


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[SharedCache]:
    """A worker's tier."""
    redis = Redis(RedisConfig(url=url, timeout_ms=10_000))
    await redis.open()
    shared = SharedCache(redis, "test:")
    try:
        yield shared
    finally:
        await shared.close()
        await redis.close()


@pytest.fixture
async def shared(server: RedisServer) -> AsyncIterator[SharedCache]:
    async with opened(server.url) as cache:
        await cache.redis.client.flushall()
        yield cache


def kept(body: bytes = b'{"answer":"noon"}', at: float | None = None) -> Kept:
    return Kept(body, time.time() if at is None else at, 100.0, 10.0, 0.5)


async def test_it_is_a_cache_like_others(shared: SharedCache) -> None:
    """aiocache's operations work; a time to live ends a value."""
    assert await shared.get("a") is None
    assert await shared.set("a", b"1", ttl=100)
    assert await shared.get("a") == b"1"
    assert 99_000 < await shared.redis.client.pttl("test:a") <= 100_000
    await shared.multi_set([("b", b"2"), ("c", b"3")])
    assert await shared.multi_get(["a", "b", "c", "d"]) == [b"1", b"2", b"3", None]
    assert await shared.exists("b")
    assert await shared.delete("b") == 1
    assert await shared.multi_get(["a", "b"]) == [b"1", None]


async def test_reads_of_one_turn_travel_together(shared: SharedCache) -> None:
    """Two hundred reads at once are one pipeline; each gets its own value."""
    await shared.multi_set([(str(number), b"%d" % number) for number in range(200)])
    client: Client = shared.redis.client  # type: ignore[assignment]
    before = await client.info("stats")
    read = await asyncio.gather(*(shared.get(str(number)) for number in range(200)))
    after = await client.info("stats")
    assert read == [b"%d" % number for number in range(200)]
    # Read by the server in one go or two, as the kernel hands it over, not in two hundred.
    assert after["total_reads_processed"] - before["total_reads_processed"] < 20


async def test_what_cannot_be_read_is_a_miss(shared: SharedCache) -> None:
    """Damaged, foreign and old values, and keys of another type."""
    client: Client = shared.redis.client  # type: ignore[assignment]
    await client.set("test:damaged", b"\x01\x00garbage garbage")
    await client.lpush("test:list", "1")
    await client.set("test:empty", b"")
    names = ["damaged", "list", "empty"]
    assert await asyncio.gather(*(shared.get(name) for name in names)) == [None] * 3
    await shared.set("answer:{" + KEY.hex() + "}", b"no msgpack of ours")
    assert await Elsewhere(shared).find(KEY) is None


async def test_without_redis_everything_is_a_miss() -> None:
    """No operation raises, and nobody waits for a lease."""
    with redis_server() as gone:
        async with opened(gone.url) as cache:
            gone.kill()
            for _ in range(5):
                assert await cache.get("a") is None
                assert not await cache.set("a", b"1")
                assert not await cache.exists("a")
            assert await Elsewhere(cache).find_or_lease(KEY, time.monotonic() + 60) is None


async def test_a_cancelled_reader_does_not_disturb_the_others(shared: SharedCache) -> None:
    """Half of those in a pipeline leave; the others get their values."""
    await shared.multi_set([(str(number), b"%d" % number) for number in range(50)])
    readers = [asyncio.create_task(shared.get(str(number))) for number in range(50)]
    await asyncio.sleep(0)
    for reader in readers[::2]:
        reader.cancel()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert results[1::2] == [b"%d" % number for number in range(1, 50, 2)]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])


async def test_one_computes_and_the_others_get_its_answer(
    server: RedisServer, shared: SharedCache
) -> None:
    """Of many workers one gets the lease; the rest wait until it has stored the answer."""
    async with opened(server.url) as second:
        workers = [Elsewhere(shared), Elsewhere(second)]
        until = time.monotonic() + 60
        asking = [
            asyncio.create_task(workers[number % 2].find_or_lease(KEY, until))
            for number in range(10)
        ]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        (lease,) = [task.result() for task in done]
        assert isinstance(lease, Lease)
        async with lease.held():
            answer = kept()
            assert await lease.store(answer)
        assert await asyncio.gather(*waiting) == [answer] * 9


async def test_a_failed_computation_hands_over(server: RedisServer, shared: SharedCache) -> None:
    """A lease that is given up without an answer goes to one of those who wait."""
    async with opened(server.url) as second:
        until = time.monotonic() + 60
        first = await Elsewhere(shared).find_or_lease(KEY, until)
        assert isinstance(first, Lease)
        waiting = asyncio.create_task(Elsewhere(second).find_or_lease(KEY, until))
        with pytest.raises(RuntimeError):
            async with first.held():
                raise RuntimeError
        assert isinstance(await waiting, Lease)


async def test_who_was_taken_for_dead_stores_nothing(
    monkeypatch: pytest.MonkeyPatch, shared: SharedCache
) -> None:
    """When a lease has ended and another has it, its former holder's answer is refused."""
    monkeypatch.setattr(elsewhere, "LEASE_MS", 1)
    until = time.monotonic() + 60
    dead = await Elsewhere(shared).find_or_lease(KEY, until)
    monkeypatch.setattr(elsewhere, "LEASE_MS", 60_000)
    alive = await Elsewhere(shared).find_or_lease(KEY, until)
    assert isinstance(dead, Lease)
    assert isinstance(alive, Lease)
    assert not await dead.store(kept(b"old"))
    assert await Elsewhere(shared).find(KEY) is None
    assert await alive.store(kept(b"new"))
    found = await Elsewhere(shared).find(KEY)
    assert found is not None
    assert found.body == b"new"
    assert not await alive.store(kept(b"twice"))


async def test_nobody_waits_beyond_the_deadline(shared: SharedCache) -> None:
    """While another computes for ever, a waiter goes on alone when its time is up."""
    assert isinstance(await Elsewhere(shared).find_or_lease(KEY, time.monotonic() + 60), Lease)
    assert await Elsewhere(shared).find_or_lease(KEY, time.monotonic()) is None


async def test_a_refresh_wants_a_newer_answer(shared: SharedCache) -> None:
    """The answer that is to be replaced does not count; one that came since does."""
    worker = Elsewhere(shared)
    now = time.time()
    worker.keep_soon(KEY, None, kept(at=now))
    await asyncio.wait(shared._writes)
    until = time.monotonic() + 60
    found = await worker.find_or_lease(KEY, until, newer_than=now - 1)
    assert isinstance(found, Kept)
    lease = await worker.find_or_lease(KEY, until, newer_than=now)
    assert isinstance(lease, Lease)


async def test_writes_are_bounded(shared: SharedCache) -> None:
    """More than so many writes at once are not made."""

    async def never() -> None:
        await asyncio.Event().wait()

    for _ in range(300):
        shared.soon(never())
    assert len(shared._writes) == 256
    await asyncio.sleep(0)
    for task in shared._writes:
        task.cancel()
    await asyncio.wait(shared._writes)


def test_the_stored_form_is_stable() -> None:
    """Fields may only be added at the end, and with a new version byte."""
    assert msgspec.msgpack.encode(Kept(b"x", 1.0, 2.0, 3.0, 4.0))[:4] == b"\x95\xc4\x01x"
