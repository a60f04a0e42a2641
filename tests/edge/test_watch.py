"""Clients that cost without asking: counted by address, closed in time, the others left alone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from ragserve.config import LimitsConfig
from ragserve.edge.address import Proxies
from ragserve.edge.protocol import Connection
from ragserve.edge.watch import CLOSING_S, LOOKED_AT_ONCE, NEVER, STEP_S, Watch
from tests.edge.wire import make_lane

HALF = b"POST /v1/query HTTP/1.1\r\nHost: a\r\nX-Slow: "
PATIENT_S = 30.0


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("ragserve_clients_dropped_total", {"reason": reason}) or 0.0


def test_an_address_has_so_many_connections() -> None:
    """An IPv6 network counts as one; this host and trusted proxies are not counted."""
    watch = Watch(LimitsConfig(connections_per_address=2), Proxies("10.0.0.0/8"))
    before = dropped("connections")
    assert [watch.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [watch.admit(f"2001:db8::{n}") for n in range(3)] == [True, True, False]
    for free in ("127.0.0.1", "::1", "10.1.2.3", ""):
        assert all(watch.admit(free) for _ in range(10))
        watch.forget(free)
    assert dropped("connections") - before == 2
    watch.forget("192.0.2.1")
    assert watch.admit("192.0.2.1")
    assert repr(watch) == "<Watch 2 addresses>"
    for _ in range(2):
        watch.forget("192.0.2.1")
        watch.forget("2001:db8::9")
    assert repr(watch) == "<Watch 0 addresses>"


def test_any_number_if_the_operator_says_so() -> None:
    watch = Watch(LimitsConfig(connections_per_address=0), Proxies(""))
    assert all(watch.admit("192.0.2.1") for _ in range(100_000))
    assert repr(watch) == "<Watch 0 addresses>"


def closed(watch: Watch, connections: list[Fake], now: float) -> None:
    for _ in watch.look(connections, now):
        pass


class Fake:
    """A connection whose client reads ``rate`` bytes a second."""

    def __init__(self, rate: int = 0) -> None:
        self.head_since = self.stuck_since = NEVER
        self.backlog = 10_000
        self.rate = rate
        self.gone = False

    def note_backlog(self, now: float) -> None:
        if self.rate:
            self.stuck_since = now

    def drop(self) -> None:
        self.gone = True


def test_what_takes_too_long_is_closed() -> None:
    """A head that never ends and a reader that never reads; not a slow one, not an idle one."""
    watch = Watch(LimitsConfig(head_timeout_s=10, write_timeout_s=30), Proxies(""))
    endless, stuck, slow, idle = Fake(), Fake(), Fake(rate=100), Fake()
    endless.head_since = stuck.stuck_since = slow.stuck_since = 100.0
    for now in (105.0, 109.0, 110.0):
        closed(watch, [endless, stuck, slow, idle], now)
        assert not endless.gone
    closed(watch, [endless, stuck, slow, idle], 110.1)
    assert endless.gone
    closed(watch, [stuck, slow, idle], 130.1)
    assert (stuck.gone, slow.gone, idle.gone) == (True, False, False)


def test_others_have_their_turns() -> None:
    """However many connections there are or are due, few are handled before others have a turn."""
    watch = Watch(LimitsConfig(head_timeout_s=10), Proxies(""))
    for count, at_once in ((1, 1), (3, 1), (100, 1), (400, 3), (8_000, 50)):
        endless = [Fake() for _ in range(count)]
        for one in endless:
            one.head_since = 100.0
        gone, closing_s = [0], 0.0
        for pause_s in watch.look(endless, 110.1):
            gone.append(sum(one.gone for one in endless))
            closing_s += pause_s
        assert max(b - a for a, b in itertools.pairwise(gone)) == at_once
        assert all(one.gone for one in endless)
        assert closing_s == pytest.approx(count // at_once * STEP_S)
        assert closing_s <= CLOSING_S + 1e-9
    idle = [Fake() for _ in range(10_000)]
    assert list(watch.look(idle, 110.1)) == [0.0] * (10_000 // LOOKED_AT_ONCE)


def test_who_goes_on_in_time_stays() -> None:
    """A head that ends while others are being closed before it is no fault any more."""
    watch = Watch(LimitsConfig(head_timeout_s=10), Proxies(""))
    first, second = Fake(), Fake()
    first.head_since = second.head_since = 100.0
    looking = watch.look([first, second], 110.1)
    next(looking)
    second.head_since = NEVER
    assert list(looking) == [STEP_S]
    assert (first.gone, second.gone) == (True, False)


@pytest.mark.parametrize("with_lane", [True, False])
async def test_slow_heads_over_real_sockets(with_lane: bool) -> None:
    """Silent and dripping clients are closed; who has asked before may be idle."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(text="yes")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    server = runner.server
    assert server is not None
    loop = asyncio.get_running_loop()
    watch = Watch(LimitsConfig(head_timeout_s=0.5), Proxies(""))
    lane = make_lane() if with_lane else None
    listening = await loop.create_server(
        lambda: Connection(server, lane, watch, loop=loop, **server._kwargs), "127.0.0.1", 0
    )
    port = listening.sockets[0].getsockname()[1]
    watch.start(lambda: server.connections)  # type: ignore[arg-type,return-value]
    before = dropped("head")
    try:
        silent, dripping, idle, asking = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(4)
        ]
        asked = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"
        for reader, writer in (idle, asking):
            writer.write(asked)
            assert b"yes" in await reader.readuntil(b"yes")
        dripping[1].write(HALF)
        asking[1].write(HALF)
        start = time.monotonic()

        async def drip() -> None:
            while True:
                await asyncio.sleep(0.1)
                dripping[1].write(b"x")

        drops = asyncio.create_task(drip())
        async with asyncio.timeout(PATIENT_S):
            for reader, _ in (silent, dripping, asking):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
        drops.cancel()
        assert time.monotonic() - start >= 0.5
        assert dropped("head") - before == 3
        idle[1].write(asked)
        assert b"yes" in await idle[0].readuntil(b"yes")
        for _, writer in (silent, dripping, idle, asking):
            writer.close()
    finally:
        await watch.stop(app)
        listening.close()
        await runner.cleanup()


async def test_a_reader_that_stops_is_cut_off() -> None:
    """Its backlog does not shrink; one that takes a little now and then keeps its connection."""

    async def much(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(64 * 1024**2))

    app = web.Application()
    app.router.add_get("/", much)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    server = runner.server
    assert server is not None
    loop = asyncio.get_running_loop()
    watch = Watch(LimitsConfig(write_timeout_s=1.5), Proxies(""))
    listening = await loop.create_server(
        lambda: Connection(server, None, watch, loop=loop, **server._kwargs), "127.0.0.1", 0
    )
    port = listening.sockets[0].getsockname()[1]
    watch.start(lambda: server.connections)  # type: ignore[arg-type,return-value]
    before = dropped("write")
    try:
        stopped, slow = [
            await asyncio.open_connection("127.0.0.1", port, limit=1000) for _ in range(2)
        ]
        for _, writer in (stopped, slow):
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(PATIENT_S):
            while dropped("write") == before:
                assert len(await slow[0].readexactly(2 * 1024**2)) == 2 * 1024**2
                await asyncio.sleep(0.2)
        assert dropped("write") - before == 1
        assert len(server.connections) == 1
        for _, writer in (stopped, slow):
            writer.close()
    finally:
        await watch.stop(app)
        listening.close()
        await runner.cleanup()
