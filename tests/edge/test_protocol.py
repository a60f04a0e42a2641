from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from aiohttp.http_parser import HttpRequestParserPy
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ragserve.edge import protocol
from ragserve.edge.protocol import Connection, check_aiohttp
from ragserve.errors import ConfigurationError
from tests.edge.vectors import ALL, MALFORMED, PLAIN, SMUGGLED, UNUSUAL, get, post
from tests.edge.wire import Outcome, Side, turns, two_sides


def answered_by_the_lane() -> float:
    return REGISTRY.get_sample_value("ragserve_http_express_total") or 0.0


async def assert_alike(lane: Side, plain: Side, segments: list[bytes], *, at_once: bool) -> Outcome:
    expected = await plain.send(segments, at_once=at_once)
    assert await lane.send(segments, at_once=at_once) == expected, segments
    return expected


@pytest.mark.parametrize("name", ALL)
async def test_both_lanes_give_the_same_answers(name: str) -> None:
    """The same bytes, whole and then a good request: status, headers, body and end are equal."""
    async with two_sides() as (lane, plain):
        for at_once in (False, True):
            await assert_alike(lane, plain, [ALL[name]], at_once=at_once)
            await assert_alike(lane, plain, [ALL[name], get()], at_once=at_once)
            await assert_alike(lane, plain, [get(), ALL[name], get()], at_once=at_once)
            await assert_alike(lane, plain, [post() + ALL[name]], at_once=at_once)


@pytest.mark.parametrize("name", ALL)
async def test_both_lanes_refuse_alike(name: str) -> None:
    """Over a limit the same bytes get the same refusals, and what is no question its answer."""
    async with two_sides(limited=True) as (lane, plain):
        for at_once in (False, True):
            await assert_alike(lane, plain, [ALL[name], get()], at_once=at_once)
            await assert_alike(lane, plain, [post(), ALL[name], get()], at_once=at_once)
            await assert_alike(lane, plain, [post() + ALL[name]], at_once=at_once)


LONG = 600
"""The few vectors over this are cut at every byte only by night."""


@pytest.mark.parametrize(
    ("name", "step"),
    [(name, 1 + len(data) // LONG) for name, data in ALL.items()]
    + [
        pytest.param(name, 1, marks=pytest.mark.nightly)
        for name, data in ALL.items()
        if len(data) >= LONG
    ],
)
async def test_segments_do_not_matter(name: str, step: int) -> None:
    """Cut in two at any byte, the same bytes get aiohttp's answers; good ones get 200 each."""
    data = ALL[name]
    async with two_sides() as (lane, plain):
        for cut in range(1, len(data), step):
            for at_once in (False, True):
                segments = [data[:cut], data[cut:]]
                outcome = await assert_alike(lane, plain, segments, at_once=at_once)
                if name in PLAIN:
                    assert [answer.status for answer in outcome.answers] == [200]


@pytest.mark.parametrize("name", PLAIN)
async def test_plain_requests_are_answered_once(name: str) -> None:
    """Each vector that is called plain has one answer, 200, and the connection stays."""
    async with two_sides() as (lane, _):
        outcome = await lane.send([PLAIN[name]])
    assert [answer.status for answer in outcome.answers] == [200]
    assert not outcome.closed


@pytest.mark.parametrize("name", MALFORMED)
async def test_smuggled_bytes_are_never_executed(name: str) -> None:
    """After hits from the lane, and before them, no answer is one to the smuggled request."""
    async with two_sides() as (lane, plain):
        expected = await plain.send([MALFORMED[name]])
        for segments in ([post(), MALFORMED[name]], [post() + MALFORMED[name]]):
            outcome = await lane.send(segments)
            smuggled = [a for a in outcome.answers if b"/smuggled" in a.body]
            assert len(smuggled) <= len([a for a in expected.answers if b"/smuggled" in a.body])


async def test_a_body_that_looks_like_a_request_is_a_body() -> None:
    """What follows a cached hit is read from the exact end of its body."""
    async with two_sides() as (lane, _):
        before = answered_by_the_lane()
        outcome = await lane.send([post(SMUGGLED), post(SMUGGLED)])
    assert answered_by_the_lane() - before == 2
    assert len(outcome.answers) == 2
    assert not any(b"/smuggled" in answer.body for answer in outcome.answers)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(ALL)), min_size=1, max_size=5),
    st.lists(st.integers(0, 4000), max_size=6),
    st.booleans(),
)
def test_any_stream_in_any_segments(names: list[str], cuts: list[int], at_once: bool) -> None:
    """Any sequence of vectors in any segments: what plain aiohttp answers, in the same order."""
    data = b"".join(ALL[name] for name in names)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    segments = [data[a:b] for a, b in pairwise(edges)]

    async def compare() -> None:
        async with two_sides() as (lane, plain):
            await assert_alike(lane, plain, segments, at_once=at_once)

    asyncio.run(compare())


async def test_who_answers() -> None:
    """Lane: plain requests, also after aiohttp answered one. aiohttp: all else, then everything."""
    async with two_sides() as (lane, _):
        for segments, expected in (
            ([get(), post(), get()], 3),
            ([get(), post(b"?"), get()], 2),
            ([get(), post(b"?long"[:2] * 30_000), get()], 2),
            ([get(), UNUSUAL["chunked"], get()], 1),
            ([get(), get() + get(), get()], 1),
            ([get(), get()[:-3], get()[-3:], get()], 1),
            ([post()[:-3], post()[-3:], get()], 2),
        ):
            before = answered_by_the_lane()
            outcome = await lane.send(segments)
            assert answered_by_the_lane() - before == expected, segments
            assert all(answer.status == 200 for answer in outcome.answers)


async def test_a_busy_lane_connection_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane's answers count for the keep-alive timer; silence of that length ends it."""
    loop = asyncio.get_running_loop()
    clock = loop.time
    late = 0.0
    monkeypatch.setattr(loop, "time", lambda: clock() + late)
    monkeypatch.setattr(protocol, "monotonic", lambda: clock() + late)
    async with two_sides() as (lane, _):
        lane.server._kwargs["keepalive_timeout"] = 60.0
        wire = lane.connect()
        await turns()
        for _ in range(5):
            wire.protocol.data_received(get())
            late += 50.0
            await turns()
            assert not wire.closed
        late += 20.0
        while not wire.closed:
            await turns()
    assert wire.written.count(b"HTTP/1.1 200") == 5


async def test_a_body_that_is_late_is_left_to_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head whose body does not come is held for HOLD_S, then aiohttp's deadlines apply."""
    monkeypatch.setattr(protocol, "HOLD_S", 0.0)
    data = post()
    async with two_sides() as (lane, _):
        wire = lane.connect()
        await turns()
        wire.protocol.data_received(data[:-5])
        while not wire.protocol._request_in_progress:
            await turns()
        wire.protocol.data_received(data[-5:])
        while not wire.written:
            await turns()
        before = answered_by_the_lane()
        wire.protocol.data_received(data)
        assert answered_by_the_lane() - before == 1


async def test_a_client_that_does_not_read_is_not_answered_at_once() -> None:
    """Above the write buffer's high-water mark the lane writes nothing."""
    async with two_sides() as (lane, _):
        wire = lane.connect()
        await turns()
        wire.protocol.pause_writing()
        wire.protocol.data_received(get())
        assert wire.written == b""
        wire.protocol.resume_writing()
        while not wire.written:
            await turns()


async def test_a_large_body_comes_as_fast_as_it_is_read() -> None:
    """Reading pauses while the handler is behind, goes on when it has caught up, loses nothing."""
    data = post(b"?" * 1_000_000)
    async with two_sides() as (lane, _), asyncio.timeout(30):
        wire = lane.connect()
        await turns()
        pauses = 0
        for start in range(0, len(data), 200_000):
            wire.protocol.data_received(data[start : start + 200_000])
            pauses += wire.paused
            while wire.paused:
                await turns()
        while not wire.written:
            await turns()
        assert pauses > 0
        assert b'"length":1000000' in wire.written
        before = answered_by_the_lane()
        wire.protocol.data_received(get())
        assert answered_by_the_lane() - before == 1


async def test_a_client_that_leaves_in_the_middle_leaves_nothing() -> None:
    """EOF and a lost connection while a head is held: no timer, no held bytes."""
    async with two_sides() as (lane, _):
        wire = lane.connect()
        await turns()
        wire.protocol.data_received(post()[:-5])
        connection = wire.protocol
        assert isinstance(connection, Connection)
        assert connection._holding is not None
        wire.close()
        await turns()
        assert (connection._holding, connection._held) == (None, b"")
        wire = lane.connect()
        await turns()
        wire.protocol.data_received(post()[:-5])
        wire.protocol.eof_received()
        assert wire.protocol._request_count == 1
        wire.close()
        await turns()


@pytest.mark.nightly
async def test_many_mixed_pipelines() -> None:
    """10,000 connections with pipelines of everything: strict order, none lost."""
    names = sorted(PLAIN | UNUSUAL)
    async with two_sides() as (lane, plain):
        for n in range(10_000):
            stream = [ALL[names[(n * 7 + k * (n % 11 + 1)) % len(names)]] for k in range(8)]
            await assert_alike(lane, plain, stream, at_once=n % 2 == 0)


def test_this_aiohttp_has_what_the_lane_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane is on with the aiohttp installed here, and off, with a reason, with another."""
    assert check_aiohttp() is None
    monkeypatch.setattr(protocol, "INSIDES", protocol.INSIDES | {"_gone", "_also_gone"})
    monkeypatch.setattr(protocol.aiohttp, "__version__", "4.0.0")
    assert check_aiohttp() == "aiohttp 4.0.0 has no _also_gone, _gone"


def test_an_aiohttp_that_parses_otherwise_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the C parser, or with an old aiohttp, the reason is an error of configuration."""
    monkeypatch.setattr(protocol, "HttpRequestParser", HttpRequestParserPy)
    with pytest.raises(ConfigurationError, match="no C parser"):
        check_aiohttp()
    monkeypatch.setattr(protocol.aiohttp, "__version__", "3.14.2")
    with pytest.raises(ConfigurationError, match=r"aiohttp 3\.14\.2: 3\.14\.5 or newer"):
        check_aiohttp()
