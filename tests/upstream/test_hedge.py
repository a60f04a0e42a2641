"""Hedged calls: a slow first word gets company, one of the two is heard, the other is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from ragserve.flow.budget import RetryBudget
from ragserve.flow.recent import ENOUGH
from ragserve.metrics import UPSTREAM_HEDGES
from ragserve.upstream import CallFailed, Member, Server, Speak, Upstream
from tests.upstream.wire import (
    END,
    HEAD,
    PATIENCE,
    Client,
    Script,
    Wire,
    calling,
    hang,
    said,
    then,
)

TYPICAL_S = 0.05


@asynccontextmanager
async def _hedging(*scripts: Script) -> AsyncIterator[tuple[Upstream, list[Wire]]]:
    """Servers, asked in this order, whose first words usually come within ``TYPICAL_S``."""
    async with AsyncExitStack() as stack:
        members, wires = [], []
        for priority, script in enumerate(scripts):
            server, wire = await stack.enter_async_context(calling(script))
            members.append(Member(server, priority=priority))
            wires.append(wire)
        upstream = Upstream(members, attempts=1)
        for _ in range(ENOUGH):
            upstream._first_words.add(TYPICAL_S)
        yield upstream, wires


async def _heard(upstream: Upstream, *, hedged: bool = True) -> list[bytes]:
    """Return what is heard of a call, whoever answers it."""
    heard: list[bytes] = []

    async def use(server: Server, speak: Speak) -> None:
        def hear(events: object) -> None:
            speak()
            heard.extend(events)  # type: ignore[call-overload]

        await server.post("/chat", b"{}", hear, PATIENCE)

    async with asyncio.timeout(30):
        await upstream.call(use, hedged=hedged)
    return heard


def hedges(result: str) -> float:
    return UPSTREAM_HEDGES.labels(result)._value.get()


async def test_a_slow_first_word_gets_company() -> None:
    """The second server answers, and the first one's connection is closed at once."""
    won = hedges("won")
    async with _hedging(hang, then(HEAD + said("b") + END)) as (upstream, wires):
        assert await _heard(upstream) == [b"b"]
        await wires[0].until_ended(1)
        assert hedges("won") == won + 1
        assert [repr(one.server).count("0 busy") for one in upstream.members] == [1, 1]
        assert upstream.members[0].breaker.state == "closed", "slow is not broken"


async def test_whoever_speaks_first_is_heard() -> None:
    """Of two that speak nobody hears a mixture; the slower one is cut off before it speaks."""
    second_asked = asyncio.Event()
    first_heard = asyncio.Event()

    async def slow(client: Client) -> None:
        await client.request()
        await second_asked.wait()
        await client.send(HEAD + said("a"))
        first_heard.set()
        await client.send(said("a") + END)
        await client.gone()

    async def slower(client: Client) -> None:
        await client.request()
        second_asked.set()
        await client.gone()

    lost = hedges("lost")
    async with _hedging(slow, slower) as (upstream, wires):
        assert await _heard(upstream) == [b"a", b"a"]
        await wires[1].until_ended(1)
    assert hedges("lost") == lost + 1


async def test_a_quick_one_stays_alone() -> None:
    """What speaks in its usual time is asked once, however long it then goes on."""

    async def quick(client: Client) -> None:
        await client.request()
        await client.send(HEAD + said("a"))
        await asyncio.sleep(2 * TYPICAL_S)
        await client.send(said("a") + END)
        await client.gone()

    async with _hedging(quick, hang) as (upstream, wires):
        upstream._first_words.add(1.0)
        assert await _heard(upstream) == [b"a", b"a"]
        assert wires[1].connections == 0


@pytest.mark.parametrize("why", ["not asked for", "nothing is known", "no budget"])
async def test_nothing_is_hedged_without_reason(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off, with too few measurements, or with no retry to spend, one server is asked."""

    async def late(client: Client) -> None:
        await client.request()
        await asyncio.sleep(2 * TYPICAL_S)
        await client.send(HEAD + said("a") + END)
        await client.gone()

    async with _hedging(late, hang) as (upstream, wires):
        if why == "nothing is known":
            upstream._first_words._values.clear()
        if why == "no budget":
            upstream._budget = RetryBudget(share=0.0, per_s=0.0, reserve=0.0)
        assert await _heard(upstream, hedged=why != "not asked for") == [b"a"]
        assert wires[1].connections == 0


async def test_both_may_fail() -> None:
    """Then the call fails, with the first failure, and nothing is left open."""
    broken = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"
    company = asyncio.Event()

    async def first(client: Client) -> None:
        await client.request()
        await company.wait()
        await client.send(broken)
        await client.gone()

    async def second(client: Client) -> None:
        await client.request()
        company.set()
        await client.gone()

    async with _hedging(first, second) as (upstream, wires):
        calling_it = asyncio.create_task(_heard(upstream))
        await company.wait()
        while not upstream.members[0].breaker._failures:  # noqa: ASYNC110 - its own count
            await asyncio.sleep(0)
        assert not calling_it.done(), "the second one may still answer"
        calling_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling_it
        await wires[1].until_ended(1)

    async with _hedging(then(broken, close=True), hang) as (upstream, _):
        with pytest.raises(CallFailed, match="status 500"):
            await _heard(upstream)


async def test_whoever_leaves_ends_both() -> None:
    """Cancelling a call closes every connection that it has."""
    company = asyncio.Event()

    async def second(client: Client) -> None:
        await client.request()
        company.set()
        await client.gone()

    async with _hedging(hang, second) as (upstream, wires):
        calling_it = asyncio.create_task(_heard(upstream))
        await company.wait()
        calling_it.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling_it
        for wire in wires:
            await wire.until_ended(1)
