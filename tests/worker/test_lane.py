"""The express lane of a real worker, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ragserve.edge import protocol, ratelimit
from ragserve.edge.site import BATCH, Site
from ragserve.handlers import SERVICES, Services
from ragserve.ingest.run import ingesting
from ragserve.worker import run
from ragserve.worker.app import create_app
from ragserve.worker.run import make_site
from tests.conftest import configured

SAME = {"Date", "X-Request-ID", "Content-Length"}
"""Headers that every answer has, with values of its own."""


class Server(NamedTuple):
    """A served application; ``plain_url`` leads to the same one without the lane."""

    url: str
    plain_url: str
    services: Services
    site: web.BaseSite


@asynccontextmanager
async def served(data_dir: Path, dsn: str, **settings: object) -> AsyncIterator[Server]:
    """Serve as a worker does, without an ingest process."""
    config = configured(**settings)
    app = create_app(config, data_dir, dsn)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    with socket.socket() as listener, socket.socket() as other:
        listener.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        try:
            site = make_site(runner, [listener], config, app)
            await site.start()
            await web.SockSite(runner, other).start()
            app[SERVICES].phase = "ready"
            url, plain_url = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (listener, other))
            yield Server(url, plain_url, app[SERVICES], site)
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
        assert isinstance(on.site, Site)
        assert on.site._lane is not None
        assert off.site._lane is None
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


async def ask(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], **headers: str
) -> tuple[int, dict[str, str], bytes]:
    async with session.post(url, json=body, headers=headers) as response:
        return response.status, dict(response.headers), await response.read()


@asynccontextmanager
async def asking(
    data_dir: Path, dsn: str, **settings: object
) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    """Serve two documents, with an ingest process."""
    async with (
        served(data_dir, dsn, **settings) as server,
        ingesting(configured(), data_dir, dsn),
        aiohttp.ClientSession() as session,
    ):
        for text in ("Lunch is served at noon.", "The library closes at six."):
            body = {"id": text[:3], "text": text}
            assert (await ask(session, server.url + "/v1/documents?wait=30", body))[0] == 200
        yield server, session


@pytest.mark.parametrize("path", ["/v1/query", "/v1/search"])
async def test_a_repeated_question_is_answered_by_the_lane(
    tmp_path: Path, dsn: str, path: str
) -> None:
    """With the status, headers and body that aiohttp gives it, counted in the same metrics."""
    question = {"query": "When is lunch served?"}
    async with asking(tmp_path, dsn) as (server, session):
        before = express()
        assert (await ask(session, server.url + path, question))[0] == 200
        assert express() == before
        status, headers, body = await ask(session, server.url + path, question)
        assert express() == before + 1
        slow_status, slow_headers, slow_body = await ask(session, server.plain_url + path, question)
        assert express() == before + 1
    assert (status, body) == (slow_status, slow_body) == (200, body)
    assert b"Lunch is served at noon" in body
    assert headers["Cache-Status"] == "ragserve; hit; detail=memory"
    assert headers.keys() == slow_headers.keys()
    assert "Age" in headers
    differing = {name for name in headers if headers[name] != slow_headers[name]}
    assert differing <= {"Date", "X-Request-ID", "Age"}


def counts() -> dict[str, float]:
    """Return what is counted of refusals, by metric."""
    names = {
        "ragserve_http_requests_total": {"route": "/v1/query", "method": "POST", "status": "429"},
        "ragserve_http_request_seconds_count": {"route": "/v1/query"},
        "ragserve_rate_limited_total": {"class": "query"},
    }
    return {name: REGISTRY.get_sample_value(name, labels) or 0.0 for name, labels in names.items()}


async def test_who_is_over_a_limit_is_refused_by_the_lane(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the status, headers and body that aiohttp gives it, and counted in the same metrics."""
    now = time.monotonic()
    monkeypatch.setattr(protocol, "monotonic", lambda: now)
    monkeypatch.setattr(ratelimit, "time", SimpleNamespace(monotonic=lambda: now))
    async with asking(tmp_path, dsn, rate__query_per_minute=1) as (server, session):
        path, chat = "/v1/query", "/v1/chat/completions"
        kept = {"query": "When is lunch served?"}
        assert (await ask(session, server.plain_url + path, kept))[0] == 200
        for route, body, headers in (
            (path, kept, {}),
            (path, {"query": "When does the library close?"}, {"X-Request-ID": "a"}),
            (path, {"no": "question"}, {"Cache-Control": "no-cache"}),
            (path, kept, {"Accept": "text/event-stream"}),
            (chat, {"messages": []}, {}),
        ):
            before, lane_before = counts(), express()
            status, head, told = await ask(session, server.url + route, body, **headers)
            assert express() == lane_before + 1
            between = counts()
            other = await ask(session, server.plain_url + route, body, **headers)
            assert express() == lane_before + 1
            after = counts()
            assert {name: between[name] - before[name] for name in before} == {
                name: after[name] - between[name] for name in before
            }
            assert (
                between["ragserve_rate_limited_total"] == before["ragserve_rate_limited_total"] + 1
            )
            assert (status, other[0]) == (429, 429)
            assert head["Retry-After"] == "60"
            assert head["RateLimit"] == '"query";r=0;t=60'
            ids = head.pop("X-Request-ID"), other[1].pop("X-Request-ID")
            assert {**head, "Date": ""} == {**other[1], "Date": ""}
            assert told == other[2].replace(ids[1].encode(), ids[0].encode())


async def test_a_changed_collection_is_asked_anew(tmp_path: Path, dsn: str) -> None:
    """As soon as a document has changed, the lane gives no answer from before."""
    question = {"query": "When is lunch served?"}
    async with asking(tmp_path, dsn) as (server, session):
        for _ in range(2):
            await ask(session, server.url + "/v1/query", question)
        before = express()
        changed = {"id": "Lun", "text": "Lunch is served at one."}
        assert (await ask(session, server.url + "/v1/documents?wait=30", changed))[0] == 200
        body = await ask_until_new(session, server, question)
        assert express() == before
        assert b"served at one" in body
        _, _, again = await ask(session, server.url + "/v1/query", question)
        assert express() == before + 1
        assert b"served at one" in again


async def ask_until_new(
    session: aiohttp.ClientSession, server: Server, question: dict[str, Any]
) -> bytes:
    """Ask by the slow path until the answer may be kept: the notification has arrived."""
    async with asyncio.timeout(30):
        while True:
            _, headers, body = await ask(session, server.plain_url + "/v1/query", question)
            if headers["Cache-Status"].endswith("stored"):
                return body


async def test_wishes_and_streams_are_passed_on(tmp_path: Path, dsn: str) -> None:
    """A known question with a wish for the cache, or for a stream, is aiohttp's."""
    question = {"query": "When is lunch served?"}
    async with asking(tmp_path, dsn) as (server, session):
        url = server.url + "/v1/query"
        for _ in range(2):
            await ask(session, url, question)
        before = express()
        for wish in ("no-cache", "no-store", "max-age=0", "only-if-cached"):
            _, headers, _ = await ask(session, url, question, **{"Cache-Control": wish})
            hit = headers["Cache-Status"].startswith("ragserve; hit")
            assert hit == (wish == "only-if-cached"), wish
        _, headers, _ = await ask(session, url, {**question, "stream": True})
        assert headers["Content-Type"].startswith("text/event-stream")
        assert express() == before


async def test_a_request_that_comes_with_its_connection(tmp_path: Path, dsn: str) -> None:
    """It is here before aiohttp waits for it, and the lane answers it nevertheless."""
    async with served(tmp_path, dsn) as server:
        before = express()
        for number in range(20):
            with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as one:
                one.sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
                one.setblocking(False)
                async with asyncio.timeout(30):
                    head = await asyncio.get_running_loop().sock_recv(one, 4096)
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert express() == before + number + 1


async def test_out_of_descriptors(tmp_path: Path, dsn: str) -> None:
    """Who cannot be let in now is let in later; those inside notice nothing."""

    class Exhausted:
        """A listening socket of a process that has no descriptor left, twice."""

        def __init__(self, listener: socket.socket) -> None:
            self.listener = listener
            self.refusals = 2

        def accept(self) -> tuple[socket.socket, object]:
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.listener.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self.listener, name)

    async with served(tmp_path, dsn) as server, aiohttp.ClientSession() as session:
        site = server.site
        assert isinstance(site, Site)
        exhausted = Exhausted(site._listeners[0])
        site._listeners = [exhausted]  # type: ignore[list-item]
        site._resume()
        with capture_logs() as logs:
            assert (await fetch(session, server.url + "/ready"))[0] == 200
        assert exhausted.refusals == 0
        assert [log["event"] for log in logs].count("accept_paused") == 2


async def test_who_waits_is_let_in_at_the_end(tmp_path: Path, dsn: str) -> None:
    """A site that stops takes in all who are in its queue, however many, and answers them."""
    loop = asyncio.get_running_loop()
    async with served(tmp_path, dsn) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        # Made without a turn of the loop, so that all of them wait.
        clients = [socket.create_connection(address) for _ in range(5 * BATCH)]
        for one in clients:
            one.sendall(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
            one.setblocking(False)
        await server.site.stop()
        async with asyncio.timeout(30):
            for one in clients:
                assert (await loop.sock_recv(one, 4096)).startswith(b"HTTP/1.1 200 OK")
                one.close()
