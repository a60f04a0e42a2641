"""A million addresses: what is remembered of them is bounded, in number, in bytes and in time."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType, SimpleNamespace
from typing import NamedTuple, cast

import pytest

from ragserve.config import LimitsConfig
from ragserve.edge import quota as quota_module
from ragserve.edge import tokens as tokens_module
from ragserve.edge.address import Proxies
from ragserve.edge.quota import Quota
from ragserve.edge.ratelimit import RateLimiter
from ragserve.edge.tokens import TokenQuota
from ragserve.edge.watch import Watch
from ragserve.flow import gate as gate_module
from ragserve.flow.address import identity_of
from ragserve.flow.bounded import Bounded
from ragserve.flow.bucket import Buckets, Rate
from ragserve.flow.gate import Gate
from ragserve.flow.gradient import Gradient
from ragserve.flow.principal import READER
from ragserve.store.shares import Shares
from tests.conftest import configured

BYTES = 500
"""Of an identity at most: a short string, numbers and links."""
CODE = (type, ModuleType, FunctionType)


class Flood(NamedTuple):
    """``visits`` by so many addresses, where ``bound`` identities may be remembered."""

    visits: int
    bound: int


@pytest.fixture(
    params=[
        Flood(5_000, 500),
        pytest.param(Flood(1_000_000, quota_module.IDENTITIES), marks=pytest.mark.nightly),
    ]
)
def flood(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Flood:
    """A small one, and the real one."""
    found: Flood = request.param
    for module in (quota_module, tokens_module):
        monkeypatch.setattr(module, "IDENTITIES", found.bound)
    return found


def addresses(count: int) -> Iterator[str]:
    """Return different ones: half IPv4, half of IPv6 networks of their own."""
    for number in range(count):
        high, low = divmod(number, 65536)
        if number % 2:
            yield f"2001:db8:{high:x}:{low:x}::{number:x}"
        else:
            yield f"10.{high & 255}.{low >> 8}.{low & 255}"


def kept_bytes(flood: Flood, kept: object, visit: Callable[[str, float], None]) -> int:
    """Return how much bigger ``kept`` is at the end; check that the second half adds nothing."""
    before = size(kept)
    half = before
    for number, address in enumerate(addresses(flood.visits)):
        if number == flood.visits // 2:
            half = size(kept)
        visit(address, 1.0 + number * 1e-6)
    end = size(kept)
    assert abs(end - half) <= 0.1 * (half - before) + 1000, (before, half, end)
    return end - before


def size(root: object) -> int:
    """Return the bytes of all that can be reached from an object, but for code."""
    seen: set[int] = set()
    waiting = [root]
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, CODE):
            seen.add(id(one))
            total += sys.getsizeof(one)
            waiting.extend(gc.get_referents(one))
    return total


def test_buckets(flood: Flood) -> None:
    """Of a worker of its own: a bucket each for the requests of an address and of a client."""
    config = configured(rate__query_per_minute=60, address_rate__query_per_minute=100)
    limiter = RateLimiter(config, 1, None)

    def visit(address: str, now: float) -> None:
        assert limiter.try_take(READER, address, "query", now) is not None

    assert kept_bytes(flood, limiter, visit) < 2 * flood.bound * BYTES
    for _, limit in limiter._limits["query"]:
        assert len(limit._local) == flood.bound


def test_hands(flood: Flood) -> None:
    """Of one that shares with others, while they cannot be reached."""
    away = cast(Shares, SimpleNamespace(reachable=False))
    quota = Quota("query", 60, 2, away)

    def visit(address: str, now: float) -> None:
        assert quota.try_take(identity_of(address), now) >= 0

    assert kept_bytes(flood, quota, visit) < flood.bound * BYTES
    assert len(quota._hands) == flood.bound


async def test_tokens(flood: Flood) -> None:
    """Of those who have used up their tokens."""
    quota = TokenQuota("tokens", 60, 1, None)

    def visit(address: str, now: float) -> None:
        charging = quota.charge(identity_of(address), 100, now)
        with pytest.raises(StopIteration):
            charging.send(None)

    assert kept_bytes(flood, quota, visit) < 2 * flood.bound * BYTES
    assert (len(quota._local), len(quota._blocked)) == (flood.bound, flood.bound)


def test_connections(flood: Flood) -> None:
    """Nothing of an address is left when its last connection has ended."""
    watch = Watch(LimitsConfig(), Proxies(""))

    def visit(address: str, _now: float) -> None:
        assert watch.admit(address)
        assert watch.admit(address)
        watch.forget(address)
        watch.forget(address)

    assert kept_bytes(flood, watch, visit) < BYTES
    assert repr(watch) == "<Watch 0 addresses>"


def test_refused_tenants(flood: Flood, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tenants whose questions a gate refuses, so many of the last are remembered."""
    monkeypatch.setattr(gate_module, "REFUSED_TENANTS", flood.bound)
    gate = Gate("x", Gradient(1, 1), burst_s=0.0, standing_s=0.0)

    def visit(address: str, now: float) -> None:
        assert gate.is_too_long(1.0, address, now)

    assert kept_bytes(flood, gate, visit) < flood.bound * BYTES
    assert len(gate._refused) == flood.bound


def test_the_oldest_is_found_at_once() -> None:
    """However many were removed before it: a plain dict looks at all the places they had."""
    for one in (Buckets(Rate(1.0, 1.0), 10)._full_at, Bounded(10), Quota("x", 1, 1, None)._hands):
        assert isinstance(one, OrderedDict)
    kept: Bounded[int, None] = Bounded(10)
    for number in range(1000):
        kept[number] = None
    assert list(kept) == list(range(990, 1000))
