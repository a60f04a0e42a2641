"""Limits of a key's own: in place of everybody's, in the same bucket, for its tenant as before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ragserve.config import Config, RateConfig, TenantRateConfig
from ragserve.edge import ratelimit
from ragserve.edge.ratelimit import FREE, RateLimiter
from ragserve.errors import TooManyRequests
from ragserve.flow.principal import Principal
from ragserve.schema import KeyLimits
from ragserve.store.shares import Shares
from tests.edge.test_ratelimit import KEY, Clock, admitted, connected
from tests.redis_server import RedisServer, redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def key(name: str = "own", **limits: int) -> Principal:
    return Principal(name, "default", frozenset(), limits=KeyLimits(**limits))


async def test_it_replaces_the_limit_of_its_name() -> None:
    """More, less or any number; what it does not name is as for everybody."""
    limiter = RateLimiter(Config(rate=RateConfig(query_per_minute=5)), 1, None)
    assert await admitted(limiter, KEY, 50, 0.0) == 5
    assert await admitted(limiter, key(query_per_minute=20), 50, 0.0) == 20
    assert await admitted(limiter, key("less", query_per_minute=2), 50, 0.0) == 2
    assert await admitted(limiter, key("any", query_per_minute=0), 50, 0.0) == 50
    assert await admitted(limiter, key("same", search_per_minute=1), 50, 0.0) == 5
    decision = limiter.try_take(key("told", query_per_minute=20), "::1", "query", 0.0)
    assert decision is not None
    assert decision.fields["RateLimit-Policy"] == '"query";q=20;w=60'


async def test_it_limits_where_nobody_else_is_limited() -> None:
    """Without [rate] a key's own limit stands, and says when to come back."""
    limiter = RateLimiter(Config(), 1, None)
    own = key(query_per_minute=2)
    assert await admitted(limiter, own, 5, 0.0) == 2
    with pytest.raises(TooManyRequests, match="query: 2 requests a minute") as refused:
        await limiter.take(own, "::1", "query", 0.0)
    assert refused.value.retry_after_s == pytest.approx(30)
    assert limiter.try_take(own, "::1", "search", 0.0) == FREE


async def test_the_tenants_limit_stands() -> None:
    """A key's own limit is no way round that of its tenant."""
    config = Config(
        rate=RateConfig(query_per_minute=5), tenant_rate=TenantRateConfig(query_per_minute=8)
    )
    limiter = RateLimiter(config, 1, None)
    assert await admitted(limiter, key(query_per_minute=100), 50, 0.0) == 8
    assert await admitted(limiter, KEY, 50, 0.0) == 0


async def test_tokens_of_the_language_model() -> None:
    """They have a limit of the key's own, too."""
    limiter = RateLimiter(Config(rate=RateConfig(tokens_per_minute=100)), 1, None)
    own, free = key(tokens_per_minute=1000), key("free", tokens_per_minute=0)
    for who in (KEY, own, free):
        limiter.charge_soon(who, "::1", 500, 0.0)
    await asyncio.gather(*limiter._charging)
    with pytest.raises(TooManyRequests, match="tokens: 100 tokens a minute"):
        limiter.check_tokens(KEY, "::1", 0.0)
    limiter.check_tokens(own, "::1", 0.0)
    limiter.check_tokens(free, "::1", 0.0)
    limiter.charge_soon(own, "::1", 600, 0.0)
    await asyncio.gather(*limiter._charging)
    with pytest.raises(TooManyRequests, match="tokens: 1000 tokens a minute"):
        limiter.check_tokens(own, "::1", 0.0)


async def test_another_limit_is_no_new_bucket(server: RedisServer) -> None:
    """What was taken under the old limit counts under the new one."""
    clock = Clock()
    async with connected(server) as redis:
        limiter = RateLimiter(Config(), 1, Shares(redis, "t:", clock))
        assert await admitted(limiter, key(query_per_minute=60), 100, 0.0) == 60
        assert await admitted(limiter, key(query_per_minute=30), 100, 0.0) == 0
        clock.us += 10 * 10**6
        assert await admitted(limiter, key(query_per_minute=30), 100, 10.0) == 5
        await limiter.close()


async def test_different_limits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many limits keys have, a worker keeps so many buckets' worth."""
    monkeypatch.setattr(ratelimit, "OWN_LIMITS", 10)
    limiter = RateLimiter(Config(), 1, None)
    for most in range(1, 100):
        own = key(query_per_minute=most, tokens_per_minute=most)
        limiter.try_take(own, "::1", "query", 0.0)
        limiter.check_tokens(own, "::1", 0.0)
    assert len(limiter._own) == len(limiter._own_tokens) == len(limiter._with_own) == 10
