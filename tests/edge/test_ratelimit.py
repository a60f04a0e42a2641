"""Limits: so many requests for all workers together, Redis there or not."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from ragserve.config import AddressRateConfig, Config, RateConfig, RedisConfig, TenantRateConfig
from ragserve.edge.quota import Exhausted
from ragserve.edge.ratelimit import FREE, RateLimiter
from ragserve.errors import TooManyRequests
from ragserve.flow.bucket import Rate
from ragserve.flow.principal import OWNER, Principal
from ragserve.store.redis import Redis
from ragserve.store.shares import Shares
from tests.redis_server import RedisServer, redis_server

QUERIES = Config(rate=RateConfig(query_per_minute=60))
KEY = Principal("k1", "default", frozenset())


class Clock:
    """Microseconds, for Redis and for us."""

    def __init__(self) -> None:
        self.us = 1_000_000_000

    def __call__(self) -> int:
        return self.us


async def outcome(taking: Awaitable[object]) -> tuple[str, float | None] | None:
    """Return what was raised, or None."""
    try:
        await taking
    except TooManyRequests as refusal:
        return refusal.message, refusal.retry_after_s
    return None


def rate_limited(name: str) -> float:
    return REGISTRY.get_sample_value("ragserve_rate_limited_total", {"class": name}) or 0.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A running Redis."""
    with redis_server() as running:
        yield running


@asynccontextmanager
async def connected(server: RedisServer, timeout_ms: int = 2000) -> AsyncIterator[Redis]:
    redis = Redis(RedisConfig(url=server.url, timeout_ms=timeout_ms))
    await redis.open()
    try:
        yield redis
    finally:
        await redis.close()


async def admitted(limiter: RateLimiter, who: Principal, count: int, now: float) -> int:
    passed = 0
    for _ in range(count):
        try:
            await limiter.take(who, "192.0.2.1", "query", now)
        except TooManyRequests:
            pass
        else:
            passed += 1
    return passed


async def test_no_limit_costs_nothing() -> None:
    """A class without a limit says nothing in the head."""
    limiter = RateLimiter(QUERIES, 1, None)
    decision = limiter.try_take(OWNER, "::1", "ingest", 0.0)
    assert decision is not None
    assert (decision.fields, decision.headers) == ({}, b"")


async def test_a_worker_alone_has_its_share() -> None:
    """Without Redis each of two workers admits half the rate, and says when to come back."""
    limiter = RateLimiter(QUERIES, 2, None)
    assert await admitted(limiter, OWNER, 100, 0.0) == 30
    with pytest.raises(TooManyRequests) as refused:
        await limiter.take(OWNER, "192.0.2.1", "query", 0.5)
    assert refused.value.retry_after_s == pytest.approx(1.5)
    assert await admitted(limiter, OWNER, 10, 2.0) == 1
    assert await admitted(limiter, KEY, 10, 2.0) == 10, "a key has a bucket of its own"


async def test_what_the_head_says() -> None:
    """The policy, what is left, when the bucket is full; OpenAI's names, too."""
    decision = await RateLimiter(QUERIES, 1, None).take(KEY, "::1", "query", 0.0)
    assert decision.fields == {
        "RateLimit-Policy": '"query";q=60;w=60',
        "RateLimit": '"query";r=59;t=1',
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
    }
    assert decision.headers.startswith(b'RateLimit-Policy: "query";q=60;w=60\r\nRateLimit: ')


@pytest.mark.parametrize("redis_is", ["absent", "there", "gone"])
async def test_who_is_refused_at_once_would_be_refused_anyway(
    server: RedisServer, redis_is: str
) -> None:
    """``try_refuse`` says what ``take`` raises, and is silent wherever that lets pass.

    While no Redis is asked it knows all; else ``take`` asks at most once until a token is due.
    """
    clock, rng = Clock(), random.Random(5)
    config = Config(
        rate=RateConfig(query_per_minute=60), tenant_rate=TenantRateConfig(query_per_minute=90)
    )
    async with connected(server, timeout_ms=200) as redis:
        limiter = RateLimiter(
            config, 2, None if redis_is == "absent" else Shares(redis, "t:", clock)
        )
        other = Principal("k2", "default", frozenset())
        if redis_is == "gone":
            server.kill()
            await limiter.take(KEY, "::1", "query", 0.0)
        outcomes = Counter[tuple[bool, bool]]()
        for number in range(400):
            clock.us += 0 if number < 200 else rng.choice((0, 100_000, 700_000))
            who, now = rng.choice((KEY, other)), clock.us / 1e6
            told = limiter.try_refuse(who, "::1", "query", now)
            took = await outcome(limiter.take(who, "::1", "query", now))
            outcomes[told is not None, took is None] += 1
            if told is not None:
                assert took == (told.message, told.retry_after_s)
        assert outcomes[True, True] == 0
        assert outcomes[True, False] > 150
        assert outcomes[False, True] > 45
        assert outcomes[False, False] <= (2 * outcomes[False, True] if redis_is == "there" else 0)


async def test_a_refusal_says_what_is_left() -> None:
    """Nothing, of how much, and when, in tenths of a second, rounded up; each is counted."""
    limiter = RateLimiter(QUERIES, 1, None)
    assert limiter.try_refuse(KEY, "::1", "query", 0.0) is None
    assert limiter.try_refuse(KEY, "::1", "ingest", 0.0) is None
    assert await admitted(limiter, KEY, 60, 0.0) == 60
    before = rate_limited("query")
    refusal = limiter.try_refuse(KEY, "::1", "query", 0.25)
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(0.8)
    assert refusal.decision.fields == {
        "RateLimit-Policy": '"query";q=60;w=60',
        "RateLimit": '"query";r=0;t=60',
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "60s",
    }
    with pytest.raises(Exhausted) as raised:
        await limiter.take(KEY, "::1", "query", 0.25)
    assert raised.value.decision == refusal.decision
    assert rate_limited("query") == before + 2
    assert limiter.try_refuse(KEY, "::1", "query", 1.0) is None


async def test_a_tenant_has_a_bucket_for_all_its_keys() -> None:
    """Two keys share it; what it refuses takes nothing from the key's own."""
    config = Config(
        rate=RateConfig(query_per_minute=40), tenant_rate=TenantRateConfig(query_per_minute=60)
    )
    limiter = RateLimiter(config, 1, None)
    other = Principal("k2", "default", frozenset())
    stranger = Principal("k3", "elsewhere", frozenset())
    assert await admitted(limiter, KEY, 100, 0.0) == 40
    assert await admitted(limiter, other, 100, 0.0) == 20
    assert await admitted(limiter, stranger, 100, 0.0) == 40
    with pytest.raises(TooManyRequests, match="tenant-query: 60 requests a minute"):
        await limiter.take(other, "192.0.2.1", "query", 0.0)
    decision = limiter.try_take(other, "192.0.2.1", "query", 10.0)
    assert decision is not None
    assert decision.fields["RateLimit"] == '"tenant-query";r=9;t=51'


async def test_an_address_has_a_bucket_whatever_its_keys() -> None:
    """Keys do not help; an IPv6 network of 64 bits is one address."""
    limiter = RateLimiter(Config(address_rate=AddressRateConfig(query_per_minute=2)), 1, None)
    for number in range(3):
        who = Principal(f"k{number}", f"t{number}", frozenset())
        decision = limiter.try_take(who, f"2001:db8::{number}", "query", 0.0)
        assert (decision is not None) == (number < 2)
    assert limiter.try_take(KEY, "2001:db8:0:1::1", "query", 0.0) is not None


async def test_classes_do_not_share_a_bucket_in_redis(server: RedisServer) -> None:
    """Searches leave the questions of the same key alone."""
    config = Config(rate=RateConfig(query_per_minute=5, search_per_minute=5))
    async with connected(server) as redis:
        limiter = RateLimiter(config, 1, Shares(redis, "t:"))
        assert await admitted(limiter, KEY, 10, 0.0) == 5
        for _ in range(5):
            await limiter.take(KEY, "::1", "search", 0.0)


@pytest.mark.parametrize("with_redis", [True, False])
async def test_tokens_are_paid_afterwards(server: RedisServer, with_redis: bool) -> None:
    """An answer may take more than is left; the next one waits until there is a token again."""
    clock = Clock()
    config = Config(
        rate=RateConfig(tokens_per_minute=600), tenant_rate=TenantRateConfig(tokens_per_minute=6000)
    )
    async with connected(server) as redis:
        shares = Shares(redis, "t:", clock) if with_redis else None
        limiter = RateLimiter(config, 1, shares)
        other = RateLimiter(config, 1, shares)
        for used in (500, 150):
            limiter.check_tokens(KEY, "::1", 0.0)
            limiter.charge_soon(KEY, "::1", used, 0.0)
            await asyncio.gather(*limiter._charging)
        with pytest.raises(TooManyRequests, match="tokens: 600 tokens a minute") as refused:
            limiter.check_tokens(KEY, "::1", 0.0)
        assert refused.value.retry_after_s == pytest.approx(5.1)  # 50 too many, and one
        limiter.check_tokens(Principal("k2", "default", frozenset()), "::1", 0.0)
        limiter.check_tokens(KEY, "::1", 5.2)
        other.check_tokens(KEY, "::1", 0.0)  # it learns with its own next answer
        other.charge_soon(KEY, "::1", 1, 0.0)
        await other.close()
        if with_redis:
            with pytest.raises(TooManyRequests):
                other.check_tokens(KEY, "::1", 0.0)
        limiter.charge_soon(KEY, "::1", 9000, 6.0)
        await limiter.close()
        with pytest.raises(TooManyRequests, match="tenant-tokens: 6000"):
            limiter.check_tokens(Principal("k2", "default", frozenset()), "::1", 6.0)


async def test_a_trace_of_ten_minutes(server: RedisServer) -> None:
    """Four workers of two hosts on one Redis admit burst + rate × time + workers × k at most."""
    clock, rng = Clock(), random.Random(7)
    config = Config(rate=RateConfig(query_per_minute=600))
    async with connected(server) as one, connected(server) as two:
        limiters = [
            RateLimiter(config, 2, Shares(redis, "t:", clock)) for redis in (one, one, two, two)
        ]
        passed = 0
        start = clock.us
        while clock.us < start + 600_000_000:
            clock.us += rng.randrange(200_000)
            limiter = rng.choice(limiters)
            passed += await admitted(limiter, KEY, rng.randrange(4), clock.us / 1e6)
        seconds = (clock.us - start) / 1e6
        most = 600 + 10 * seconds + 4 * 1
        assert 0.99 * min(most, 600 + 10 * seconds) <= passed <= most


async def test_what_is_in_hand_is_given_back(server: RedisServer) -> None:
    """A worker that ends leaves its tokens to the others."""
    clock = Clock()
    config = Config(rate=RateConfig(query_per_minute=6000))
    async with connected(server) as redis:
        limiters = [RateLimiter(config, 1, Shares(redis, "t:", clock)) for _ in range(2)]
        assert await admitted(limiters[0], KEY, 1, 0.0) == 1
        await limiters[0].close()
        assert await admitted(limiters[1], KEY, 7000, 0.0) == 5999


async def test_many_at_once_ask_redis_once(server: RedisServer) -> None:
    """Those who come while tokens are fetched wait for the same; one who leaves is no matter."""
    async with connected(server) as redis:
        limiter = RateLimiter(
            Config(rate=RateConfig(query_per_minute=6000)), 1, Shares(redis, "t:")
        )
        asking = [asyncio.create_task(limiter.take(KEY, "::1", "query", 0.0)) for _ in range(25)]
        await asyncio.sleep(0)
        asking.pop(0).cancel()
        assert len(await asyncio.gather(*asking)) == 24
        calls = await redis.client.info("commandstats")
        assert calls["cmdstat_eval"]["calls"] <= 4


async def test_redis_may_go_and_come_back(server: RedisServer) -> None:
    """While it is away a worker gives out its share of what was left; neither that, nor a Redis
    that comes back empty, fills the bucket. No request fails for it."""
    clock = Clock()
    async with connected(server, timeout_ms=200) as redis:
        limiter, other = (RateLimiter(QUERIES, 2, Shares(redis, "t:", clock)) for _ in range(2))
        assert await admitted(limiter, KEY, 10, 0.0) == 10
        server.kill()
        assert await admitted(limiter, KEY, 100, 0.0) == 25
        assert await admitted(other, KEY, 20, 0.0) == 20, "it knows nothing of the ten"
        server.start()
        async with asyncio.timeout(30):
            while not redis.reachable:  # noqa: ASYNC110 - its probe
                await asyncio.sleep(0.05)
        clock.us += 1
        assert await admitted(other, KEY, 1, 0.0) == 1
        assert await admitted(limiter, KEY, 100, 0.0) == 60 - 10 - 25 - 20 - 1


@pytest.mark.parametrize("step_s", [3600, -3600])
async def test_the_clock_of_redis_may_jump(server: RedisServer, step_s: int) -> None:
    """Neither an hour forward nor one back gives tokens, or takes any for longer than a minute."""
    clock = Clock()
    clock.us += 3600 * 10**6
    config = Config(rate=RateConfig(query_per_minute=60, tokens_per_minute=60))
    async with connected(server) as redis:
        limiter = RateLimiter(config, 1, Shares(redis, "t:", clock))
        assert await admitted(limiter, KEY, 100, 0.0) == 60
        limiter.charge_soon(KEY, "::1", 90, 0.0)
        await asyncio.gather(*limiter._charging)
        clock.us += step_s * 10**6
        assert await admitted(limiter, KEY, 100, 0.0) == 0
        passed = 0
        for now in range(10, 70, 10):
            clock.us += 10**7
            passed += await admitted(limiter, KEY, 100, float(now))
        # Gone back, Redis cannot tell how long ago it was asked last: ten seconds here, once.
        assert passed == (60 if step_s > 0 else 50)
        limiter.charge_soon(KEY, "::1", 90, 70.0)
        await asyncio.gather(*limiter._charging)
        with pytest.raises(TooManyRequests) as refused:
            limiter.check_tokens(KEY, "::1", 70.0)
        assert 0 < refused.value.retry_after_s <= 90 + 90 - 60 + 2


async def test_who_has_to_wait_is_not_asked_for(server: RedisServer) -> None:
    """A client over its limit costs Redis one call until there can be a token again."""
    clock = Clock()
    async with connected(server) as redis:
        limiter = RateLimiter(QUERIES, 1, Shares(redis, "t:", clock))
        assert await admitted(limiter, KEY, 60, 0.0) == 60
        before = (await redis.client.info("commandstats"))["cmdstat_eval"]["calls"]
        assert await admitted(limiter, KEY, 500, 0.5) == 0
        with pytest.raises(TooManyRequests) as refused:
            await limiter.take(KEY, "::1", "query", 0.75)
        assert refused.value.retry_after_s == pytest.approx(0.3)
        after = (await redis.client.info("commandstats"))["cmdstat_eval"]["calls"]
        assert after - before <= 1


async def test_a_limit_below_the_number_of_workers(server: RedisServer) -> None:
    """Without Redis each worker still has a token now and then, not none for ever."""
    limiter = RateLimiter(Config(rate=RateConfig(query_per_minute=1)), 4, None)
    assert await admitted(limiter, KEY, 5, 0.0) == 1
    assert await admitted(limiter, KEY, 5, 240.0) == 1


async def test_the_script_and_the_bucket_agree(server: RedisServer) -> None:
    """The same trace through Lua and through Python admits the same requests."""
    clock, rng = Clock(), random.Random(3)
    rate = Rate.per_minute(120, burst=5)
    async with connected(server) as redis:
        shares = Shares(redis, "t:", clock)
        full_at = 0.0
        for _ in range(300):
            clock.us += rng.choice((0, 1000, 400_000, 900_000))
            lease = await shares.take("x", rate, 1)
            full_at, wait_s = rate.take(full_at, clock.us / 1e6)
            assert lease.tokens == (wait_s == 0.0)
            assert lease.wait_s == pytest.approx(wait_s, abs=1e-3)


async def test_the_defaults_limit_nothing() -> None:
    """Limits are an operator's choice."""
    limiter = RateLimiter(Config(), 1, None)
    for route_class in ("query", "search", "ingest", "admin"):
        assert limiter.try_take(KEY, "::1", route_class, 0.0) == FREE
    limiter.check_tokens(KEY, "::1", 0.0)


@pytest.mark.parametrize("redis_is", ["absent", "there", "gone"])
async def test_what_is_given_back_was_never_taken(server: RedisServer, redis_is: str) -> None:
    """However often, from each of the buckets: as many pass as before."""
    config = Config(
        rate=RateConfig(query_per_minute=60), tenant_rate=TenantRateConfig(query_per_minute=70)
    )
    async with connected(server, timeout_ms=200) as redis:
        shares = None if redis_is == "absent" else Shares(redis, "t:", Clock())
        limiter = RateLimiter(config, 1, shares)
        if redis_is == "gone":
            server.kill()
        left = 60 - await admitted(limiter, KEY, 5, 0.0)
        for _ in range(100):
            if limiter.try_take(KEY, "192.0.2.1", "query", 0.0) is None:
                await limiter.take(KEY, "192.0.2.1", "query", 0.0)
            limiter.give_back(KEY, "192.0.2.1", "query")
        assert await admitted(limiter, KEY, 100, 0.0) == left
