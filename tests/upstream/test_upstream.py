"""Several servers for one purpose: shares, priorities, what fails is left alone, retries end."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from ragserve.flow.budget import RetryBudget
from ragserve.upstream import CallFailed, Member, Server, Speak, Upstream, upstream
from tests.upstream.wire import Script, Wire, calling, replies

FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BROKEN = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"
BUSY = b"HTTP/1.1 429 No\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"
REFUSED = b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause."""
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)


@asynccontextmanager
async def _upstream(
    *scripts: Script,
    priorities: tuple[int, ...] = (),
    attempts: int = 3,
) -> AsyncIterator[tuple[Upstream, list[Wire]]]:
    async with AsyncExitStack() as stack:
        members, wires = [], []
        for index, script in enumerate(scripts):
            server, wire = await stack.enter_async_context(calling(script))
            priority = priorities[index] if priorities else index
            members.append(Member(server, priority=priority))
            wires.append(wire)
        yield Upstream(members, attempts=attempts), wires


async def test_the_next_one_answers() -> None:
    """A call that the first server fails is made at the second, and nobody hears of it."""
    async with _upstream(replies(BROKEN), replies(FINE)) as (servers, wires):
        assert await servers.post("/chat", {}) == b"{}"
    assert [wire.connections for wire in wires] == [1, 1]


async def test_one_that_fails_is_left_alone() -> None:
    """After three failures in a row the first server is not asked until its pause is over."""
    once_ill = replies(BROKEN, BROKEN, BROKEN, FINE)
    async with _upstream(once_ill, replies(*[FINE] * 9)) as (servers, _):
        for _ in range(3):
            await servers.post("/chat", {})
        breaker = servers.members[0].breaker
        assert breaker.state == "open"
        breaker.retry_at = float("inf")
        for _ in range(6):
            assert await servers.post("/chat", {}) == b"{}"
        breaker.retry_at = 0.0
        assert await servers.post("/chat", {}) == b"{}"
        assert breaker.state == "closed"


async def test_all_left_alone_fails_at_once() -> None:
    """While no server works, no call waits for one; the last failure keeps its reason."""
    async with _upstream(replies(*[BROKEN] * 3)) as (servers, wires):
        with pytest.raises(CallFailed, match="status 500: oops"):
            await servers.post("/chat", {})
        servers.members[0].breaker.retry_at = float("inf")
        with pytest.raises(CallFailed, match="model: left alone for a while after failures") as up:
            await servers.post("/chat", {})
        assert up.value.kind == "open"
    assert [wire.connections for wire in wires] == [1]


async def test_a_busy_server_is_alive() -> None:
    """429 and 400 go on to the next server, and are no reason to leave this one alone."""
    async with _upstream(replies(BUSY, REFUSED, BUSY, BUSY), replies(*[FINE] * 4)) as (servers, _):
        for _ in range(4):
            assert await servers.post("/chat", {}) == b"{}"
        assert servers.members[0].breaker.state == "closed"


async def test_a_refusal_by_all_is_final() -> None:
    """What every server refuses is asked once of each."""
    async with _upstream(replies(REFUSED), replies(REFUSED), attempts=9) as (servers, wires):
        with pytest.raises(CallFailed, match="status 400"):
            await servers.post("/chat", {})
    assert [wire.connections for wire in wires] == [1, 1]


async def test_retries_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """When everything is busy, calls are made once: retries would only add to it."""
    monkeypatch.setattr(
        upstream, "RetryBudget", lambda: RetryBudget(share=0.0, per_s=0.0, reserve=2.0)
    )
    asked = 0

    async def busy(_server: Server, _speak: Speak) -> bytes:
        nonlocal asked
        asked += 1
        raise CallFailed("busy", "throttled")

    async with _upstream(replies(), attempts=3) as (servers, _):
        for _ in range(7):
            with pytest.raises(CallFailed, match="busy"):
                await servers.call(busy)
    assert asked == 7 + 2


async def test_shares_follow_weights() -> None:
    """Of those with the same priority each is first as often as its weight says."""
    async with _upstream(*[replies()] * 3, priorities=(0, 0, 1)) as (servers, _):
        heavy, light, reserve = servers.members
        heavy.weight = 3.0
        rng = random.Random(1)
        orders = [upstream.in_order(servers.members, rng) for _ in range(4000)]
    firsts = Counter(order[0] for order in orders)
    assert 2900 <= firsts[heavy] <= 3100
    assert firsts[heavy] + firsts[light] == 4000
    assert all(order[2] is reserve for order in orders)
