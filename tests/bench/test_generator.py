"""The load generator against a real server."""

from __future__ import annotations

import asyncio
from itertools import repeat

from aiohttp import web
from aiohttp.test_utils import TestServer
from aiohttp.typedefs import Handler

from bench.generator import Generator
from bench.process import free_port

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def serve(handler: Handler) -> TestServer:
    app = web.Application()
    app.router.add_get("/", handler)
    server = TestServer(app)
    await server.start_server()
    return server


async def test_statuses_are_counted() -> None:
    """Every answer is counted under its status; those that are no success are errors."""
    asked = 0

    async def handler(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=200 if asked % 2 else 503)

    server = await serve(handler)
    generator = Generator("127.0.0.1", server.port or 0, repeat(REQUEST))
    measured = await generator.users(4, think_s=0.0, warm_up_s=0.0, seconds=0.5)
    report = measured.report()
    assert set(report["statuses"]) == {"200", "503"}  # type: ignore[call-overload]
    assert report["errors"] == measured.statuses[503]
    assert measured.answered == asked
    await server.close()


async def test_a_stalled_server_is_not_forgiven() -> None:
    """In an open loop requests that were due during a stall have waited for its end."""
    stalled = asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        if not stalled.is_set():
            stalled.set()
            await asyncio.sleep(0.5)
        return web.Response()

    server = await serve(handler)
    generator = Generator("127.0.0.1", server.port or 0, repeat(REQUEST))
    measured = await generator.rate(200, connections=1, warm_up_s=0.0, seconds=1.5)
    slow = measured.latency.get_value_at_percentile(90)
    assert slow > 100_000, f"p90 is {slow} µs"
    await server.close()


async def test_a_closed_port_is_an_error() -> None:
    """Connections that are refused are counted as status 0."""
    port = free_port()
    generator = Generator("127.0.0.1", port, repeat(REQUEST))
    measured = await generator.users(2, think_s=0.0, warm_up_s=0.0, seconds=0.3)
    assert set(measured.statuses) == {0}
    assert measured.report()["error_share"] == 1.0
