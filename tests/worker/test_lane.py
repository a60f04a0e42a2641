"""The express lane of a real worker, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ragserve.edge.protocol import LaneSite
from ragserve.handlers import SERVICES, Services
from ragserve.worker import run
from ragserve.worker.app import create_app
from ragserve.worker.run import make_site
from tests.conftest import configured

SAME = {"Date", "X-Request-ID", "Content-Length"}
"""Headers that every answer has, with values of its own."""


class Server:
    """A served application."""

    def __init__(self, url: str, services: Services, site: web.BaseSite) -> None:
        self.url = url
        self.services = services
        self.site = site


@asynccontextmanager
async def served(data_dir: Path, dsn: str, **settings: object) -> AsyncIterator[Server]:
    """Serve as a worker does, without an ingest process."""
    config = configured(**settings)
    app = create_app(config, data_dir, dsn)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        try:
            site = make_site(runner, listener, config, app[SERVICES])
            await site.start()
            app[SERVICES].phase = "ready"
            yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", app[SERVICES], site)
        finally:
            await runner.cleanup()


def express() -> float:
    return REGISTRY.get_sample_value("ragserve_http_express_total") or 0.0


def counted(path: str) -> tuple[float, float]:
    """Return how many requests of a path were answered, and how many were measured."""
    labels = {"route": path, "method": "GET", "status": "200"}
    requests = REGISTRY.get_sample_value("ragserve_http_requests_total", labels)
    seconds = REGISTRY.get_sample_value("ragserve_http_request_seconds_count", {"route": path})
    return requests or 0.0, seconds or 0.0


async def fetch(
    session: aiohttp.ClientSession, url: str, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    async with session.get(url, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


async def test_health_and_ready_are_answered_by_the_lane(tmp_path: Path, dsn: str) -> None:
    """Both lanes give the same status, body and headers, and both count and measure."""
    async with (
        served(tmp_path / "a", dsn) as on,
        served(tmp_path / "b", dsn, server__express_lane=False) as off,
        aiohttp.ClientSession() as session,
    ):
        assert isinstance(on.site, LaneSite)
        assert not isinstance(off.site, LaneSite)
        for path in ("/ready", "/health"):
            # Health is measured once, then known for a moment.
            await fetch(session, on.url + path)
            before = (express(), *counted(path))
            status, headers, body = await fetch(session, on.url + path)
            assert (express(), *counted(path)) == tuple(value + 1 for value in before)
            other_status, other_headers, other_body = await fetch(session, off.url + path)
            assert (express(), counted(path)[0]) == (before[0] + 1, before[1] + 2)
            assert status == other_status == 200
            assert headers.keys() == other_headers.keys()
            differing = {name for name in headers if headers[name] != other_headers[name]}
            assert differing <= SAME
            if path == "/ready":
                assert body == other_body


async def test_a_clients_request_id_comes_back(tmp_path: Path, dsn: str) -> None:
    """A harmless one is kept, another is replaced, and no two answers share a made-up one."""
    async with served(tmp_path, dsn) as server, aiohttp.ClientSession() as session:
        before = express()
        ids = [
            (await fetch(session, server.url + "/ready", **headers))[1]["X-Request-ID"]
            for headers in ({"X-Request-ID": "a/b=1"}, {"X-Request-ID": "a b"}, {}, {})
        ]
        assert express() - before == 4
    assert ids[0] == "a/b=1"
    assert len(set(ids)) == 4
    assert all(len(made) == 16 for made in ids[1:])


async def test_the_lane_closes_with_the_drain(tmp_path: Path, dsn: str) -> None:
    """A draining worker's answers say so and close their connection, known ones, too."""
    async with served(tmp_path, dsn) as server, aiohttp.ClientSession() as session:
        assert (await fetch(session, server.url + "/ready"))[0] == 200
        server.services.phase = "draining"
        status, headers, body = await fetch(session, server.url + "/ready")
    assert (status, headers["Connection"], body) == (503, "close", b'{"status":"draining"}')


async def test_an_end_of_the_worker_closes_lane_connections(tmp_path: Path, dsn: str) -> None:
    """A connection that only the lane has used ends with the worker, not later."""
    async with served(tmp_path, dsn) as server:
        port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b'"ready"}')).startswith(b"HTTP/1.1 200 OK\r\n")
    async with asyncio.timeout(30):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_failing_health_is_never_remembered(tmp_path: Path, dsn: str) -> None:
    """What the lane says of health is what was measured, and only while that was good."""
    async with served(tmp_path, dsn) as server, aiohttp.ClientSession() as session:
        await fetch(session, server.url + "/health")
        vitals = server.services.vitals
        assert vitals.try_get(0.0) is not None
        await server.services.database.close()
        vitals._until = 0.0
        assert (await fetch(session, server.url + "/health"))[0] == 503
        assert vitals.try_get(0.0) is None
        assert (await fetch(session, server.url + "/health"))[0] == 503


async def test_without_what_it_needs_of_aiohttp_the_lane_is_off(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer aiohttp with other insides serves everything itself, and the log says why."""
    monkeypatch.setattr(run, "check_aiohttp", lambda: "aiohttp 9 has no _waiter")
    with capture_logs() as logs:
        async with served(tmp_path, dsn) as server, aiohttp.ClientSession() as session:
            before = express()
            assert (await fetch(session, server.url + "/ready"))[0] == 200
            assert express() == before
    assert {
        "event": "express_lane_off",
        "log_level": "warning",
        "reason": "aiohttp 9 has no _waiter",
    } in logs
