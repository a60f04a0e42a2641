"""nginx in front of a worker: what passes, what is refused, and what each of them says."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from ragserve.handlers import ROUTES
from tests.generate.test_dictation import STOP, piece
from tests.handlers.test_stream import frames
from tests.nginx.conftest import behind_nginx
from tests.nginx.edge import answer, edge, needs_nginx
from tests.upstream.wire import END, HEAD, JSON, Client, said, wire

pytestmark = needs_nginx

OUTSIDE = "127.0.0.9"
"""An address that the files, as the tests install them, do not know."""
DOCUMENT = {"id": "a", "text": "Lunch is served at noon in the red hall."}
QUESTION = {"query": "When is lunch served?"}


async def upload(client: aiohttp.ClientSession) -> None:
    """Give the server something to find."""
    status, _ = await answer(await client.post("/v1/documents?wait=30", json=DOCUMENT))
    assert status == 200


async def test_a_stream_passes_word_by_word(tmp_path: Path, dsn: str) -> None:
    """The first word is read before the model has said the second."""
    heard = asyncio.Event()

    async def dictate(client: Client) -> None:
        if await client.request():
            await client.send(HEAD + said(piece("At ")))
            await heard.wait()
            await client.send(said(piece("noon.")) + STOP + END)

    async with wire(dictate) as model:
        settings = {"llm__base_url": f"http://127.0.0.1:{model.port}/v1", "llm__model": "m"}
        async with (
            behind_nginx(tmp_path, dsn, **settings) as edge,
            edge.client() as client,
            asyncio.timeout(30),
        ):
            await upload(client)
            names = []
            async with client.post("/v1/query", json={**QUESTION, "stream": True}) as response:
                async for name, _ in frames(response):
                    names.append(name)
                    if name == "delta":
                        heard.set()
            assert names.count("delta") == 2
            assert names[-1] == "end"


async def test_what_is_closed_from_outside(tmp_path: Path, dsn: str) -> None:
    """Keys, caches, metrics and health are for operators; all other routes are for everybody."""
    async with (
        behind_nginx(tmp_path, dsn, auth__allow_anonymous=True) as edge,
        edge.client() as inside,
        edge.client(OUTSIDE) as outside,
    ):
        closed = set()
        paths = {(route.method, route.path): route.scope for route in ROUTES}
        paths[("GET", "/metrics")] = paths[("GET", "/openapi.json")] = None
        for method, path in paths:
            url = path.replace("{id}", "none").replace("{name}", "none")
            async with outside.request(method, url, json={}) as response:
                body = await response.read()
                if response.status == 403:
                    error = json.loads(body)["error"]
                    assert error["code"] == "forbidden"
                    assert error["request_id"] == response.headers["X-Request-ID"]
                    closed.add((method, path))
        admin = {route for route, scope in paths.items() if scope == "admin"}
        assert closed == admin | {("GET", "/metrics"), ("GET", "/health")}
        for path in ("/metrics", "/health", "/v1/keys"):
            async with inside.get(path) as response:
                assert response.status == 200


async def test_the_clients_own_address_is_seen(tmp_path: Path, dsn: str) -> None:
    """A worker hears from nginx who asks, whatever the client says; its request id passes."""
    with capture_logs() as logs:
        async with (
            behind_nginx(tmp_path, dsn, auth__allow_anonymous=True, log__access=True) as edge,
            edge.client(OUTSIDE) as client,
        ):
            lies = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Request-ID": "r7"}
            async with client.get("/v1/collections", headers=lies) as response:
                assert response.headers["X-Request-ID"] == "r7"
    (line,) = [log for log in logs if log.get("path") == "/v1/collections"]
    assert line["remote"] == OUTSIDE


async def test_nobody_outside_is_taken_for_a_neighbour(tmp_path: Path, dsn: str) -> None:
    """While there are no keys, clients of nginx are refused unless they are on this machine."""
    async with behind_nginx(tmp_path, dsn) as edge, edge.client() as client:
        status, _ = await answer(await client.get("/v1/collections"))
        assert status == 200
        # As nginx would say it of a client elsewhere.
        path = edge.directory.parent / "worker-0.sock"
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession("http://ragserve", connector=connector) as elsewhere:
            headers = {"X-Forwarded-For": "203.0.113.7"}
            status, body = await answer(await elsewhere.get("/v1/collections", headers=headers))
            assert (status, body["error"]["code"]) == (401, "invalid_api_key")


async def test_a_flood_is_refused(tmp_path: Path, dsn: str) -> None:
    """429 in the API's shape with Retry-After, by address and class; the others pass."""
    async with (
        behind_nginx(tmp_path, dsn, auth__allow_anonymous=True) as edge,
        edge.client(OUTSIDE) as flood,
        edge.client() as other,
    ):

        async def ask() -> int:
            async with flood.post("/v1/query", json=QUESTION) as response:
                body = await response.read()
                if response.status == 429:
                    assert response.headers["Retry-After"] == "1"
                    assert response.content_type == "application/json"
                    error = json.loads(body)["error"]
                    assert error["type"] == "rate_limit_error"
                    assert OUTSIDE in error["message"]
                return response.status

        statuses = Counter(await asyncio.gather(*(ask() for _ in range(150))))
        # Nothing is in the index: what passes is a 404 for the collection.
        assert statuses.keys() == {404, 429}
        assert statuses[404] >= 40
        assert statuses[429] >= 50
        status, _ = await answer(await flood.post("/v1/search", json=QUESTION))
        assert status == 404, "another class"
        status, _ = await answer(await other.post("/v1/query", json=QUESTION))
        assert status == 404, "another address"


async def test_who_holds_too_many_requests_open(tmp_path: Path) -> None:
    """One address may wait for so many answers at once; a further one is refused, others pass."""
    asked = asyncio.Semaphore(0)
    finish = asyncio.Event()

    async def slow(client: Client) -> None:
        while await client.request():
            asked.release()
            await finish.wait()
            await client.send(JSON)

    async with (
        wire(slow) as worker,
        edge(
            tmp_path, f"127.0.0.1:{worker.port}", limits={"limit_conn": "ragserve_open 2"}
        ) as nginx,
        nginx.client(OUTSIDE) as many,
        nginx.client() as other,
        asyncio.timeout(30),
    ):
        held = [asyncio.create_task(many.post("/v1/query", json=QUESTION)) for _ in range(2)]
        for _ in held:
            await asked.acquire()
        async with many.get("/v1/models") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        held.append(asyncio.create_task(other.post("/v1/query", json=QUESTION)))
        await asked.acquire()
        finish.set()
        assert [(await answer(await one))[0] for one in held] == [200, 200, 200]
        assert (await answer(await many.get("/v1/models")))[0] == 200


async def test_maintenance(tmp_path: Path, dsn: str) -> None:
    """While the file is there: a page for people, JSON for programs, and operators come in."""
    async with (
        behind_nginx(tmp_path, dsn) as edge,
        edge.client() as inside,
        edge.client(OUTSIDE) as outside,
    ):
        assert (await answer(await outside.get("/ready")))[0] == 200
        edge.maintenance.touch()
        async with outside.get("/", headers={"Accept": "text/html,*/*"}) as response:
            assert (response.status, response.content_type) == (503, "text/html")
            assert response.headers["Retry-After"] == "60"
            assert await response.read() == (edge.directory / "maintenance.html").read_bytes()
        async with outside.post("/v1/query", json=QUESTION) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "60")
            assert (await response.json())["error"]["code"] == "maintenance"
        assert (await answer(await inside.get("/ready")))[0] == 200
        edge.maintenance.unlink()
        assert (await answer(await outside.get("/ready")))[0] == 200


async def test_what_is_too_large(tmp_path: Path, dsn: str) -> None:
    """A body over the limit is refused by nginx, in the API's shape."""
    async with behind_nginx(tmp_path, dsn) as edge:
        reader, writer = await asyncio.open_connection(
            "localhost", edge.port, ssl=edge.tls, server_hostname="localhost"
        )
        head = b"POST /v1/documents HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
        writer.write(head)
        said = await reader.readuntil(b"}}")
        writer.close()
        assert said.startswith(b"HTTP/1.1 413 ")
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is absent: apt-get install curl")
async def test_http_2_over_tls_1_3(tmp_path: Path, dsn: str) -> None:
    """Clients speak HTTP/2; TLS 1.2 is refused."""
    async with behind_nginx(tmp_path, dsn) as edge:
        shown = "%{http_version} %{response_code}"
        arguments = ["-ksS", "--http2", "--tlsv1.3", "-o", "/dev/null", "-w", shown]
        curl = await asyncio.create_subprocess_exec(
            "curl", *arguments, f"{edge.url}/ready", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await curl.communicate()
        assert said == b"2 200"
        edge.tls.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await asyncio.open_connection("localhost", edge.port, ssl=edge.tls)


async def test_slow_clients_end_at_nginx(tmp_path: Path) -> None:
    """A head or body that does not come in time ends its connection; no worker has heard of it."""

    async def never(client: Client) -> None:
        await client.request()

    limits = {"client_header_timeout": "1s", "client_body_timeout": "1s"}
    async with (
        wire(never) as worker,
        edge(tmp_path, f"127.0.0.1:{worker.port}", limits=limits) as nginx,
    ):
        half = b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
        for begin in (half, half + b"\r\n{"):
            reader, writer = await asyncio.open_connection("localhost", nginx.port, ssl=nginx.tls)
            writer.write(begin)
            async with asyncio.timeout(20):
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
        assert worker.connections == 0
