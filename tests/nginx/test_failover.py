"""Workers that die, hang or break off: questions are answered, uploads are not repeated."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import own_directory
from tests.e2e.conftest import ServerProcess, running
from tests.e2e.test_supervisor import prepare, workers
from tests.nginx.edge import Edge, answer, edge, needs_nginx
from tests.upstream.wire import JSON, Client, wire

pytestmark = needs_nginx

QUESTION = {"query": "lunch", "mode": "lexical"}


async def load(
    edge: Edge, during: Callable[[], Awaitable[object]]
) -> tuple[list[int], list[tuple[str, int]]]:
    """Return the statuses of questions, and of uploads by id, that 16 clients get meanwhile."""
    stop = asyncio.Event()
    asked: list[int] = []
    uploaded: list[tuple[str, int]] = []

    async def ask(number: int) -> None:
        async with edge.client(f"127.0.1.{number}") as client:
            while not stop.is_set():
                asked.append((await answer(await client.post("/v1/search", json=QUESTION)))[0])
                await asyncio.sleep(0.03)

    async def upload(number: int) -> None:
        async with edge.client(f"127.0.2.{number}") as client:
            while not stop.is_set():
                document = {"id": f"{number}-{len(uploaded)}", "text": "Dinner is at seven."}
                status, _ = await answer(await client.post("/v1/documents", json=document))
                uploaded.append((document["id"], status))
                await asyncio.sleep(0.15)

    async with asyncio.TaskGroup() as clients:
        for number in range(1, 13):
            clients.create_task(ask(number))
        for number in range(1, 5):
            clients.create_task(upload(number))
        await during()
        stop.set()
    return asked, uploaded


@asynccontextmanager
async def two_workers(data_dir: Path, dsn: str) -> AsyncIterator[tuple[ServerProcess, Edge]]:
    """Run a server with two workers and a document, and nginx before their own sockets."""
    with own_directory() as directory:
        sockets = str(directory)
        both = [f"unix:{sockets}/worker-{n}.sock" for n in (0, 1)]
        more = {"RAGSERVE_SERVER__SOCKETS_DIR": sockets, "RAGSERVE_AUTH__ALLOW_ANONYMOUS": "true"}
        more["DATABASE_URL"] = dsn
        async with (
            running(data_dir, "--workers", "2", **more) as server,
            edge(directory / "nginx", *both) as nginx,
        ):
            await prepare(server)
            yield server, nginx


@pytest.mark.nightly
async def test_a_rolling_reload_is_not_noticed(data_dir: Path, dsn: str) -> None:
    """All processes are replaced under load: every question and every upload is answered."""
    async with two_workers(data_dir, dsn) as (server, nginx):
        first = await workers(server, 2)

        async def reload() -> None:
            server.process.send_signal(signal.SIGHUP)
            await server.event("child_stopped", count=3)
            await server.event("ingest_ready", count=2)

        asked, uploaded = await load(nginx, reload)
        assert set(await workers(server, 4)) > set(first)
        assert set(asked) == {200}
        assert len(asked) > 100
        assert {status for _, status in uploaded} == {202}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
async def test_a_worker_that_fails(data_dir: Path, dsn: str, number: signal.Signals) -> None:
    """A worker is killed, or hangs until its supervisor kills it: every question is answered."""
    async with two_workers(data_dir, dsn) as (server, nginx):
        first, _ = await workers(server, 2)

        async def fail() -> None:
            await asyncio.sleep(1)  # of load
            os.kill(first, number)
            await workers(server, 3)

        asked, uploaded = await load(nginx, fail)
        assert set(asked) == {200}
        assert len(asked) > 100
        # What a worker had already read when it was killed nobody can answer; nothing else.
        assert {status for _, status in uploaded} <= {200, 202, 502}
        assert [status for _, status in uploaded].count(502) <= 4


@pytest.mark.parametrize(
    ("path", "tries"),
    [("/v1/query", 2), ("/v1/search", 2), ("/v1/chat/completions", 2), ("/v1/documents", 1),
     ("/v1/collections", 1), ("/v1/keys", 1)],
)  # fmt: skip
async def test_what_is_tried_again(tmp_path: Path, path: str, tries: int) -> None:
    """A worker breaks off before its answer: questions go to another one, writes to none."""
    requests = 0

    async def broken(client: Client) -> None:
        nonlocal requests
        if await client.request():
            requests += 1

    async with (
        wire(broken) as one,
        wire(broken) as two,
        edge(tmp_path, f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}") as nginx,
        nginx.client() as client,
    ):
        async with client.post(path, json=QUESTION) as response:
            assert response.status == 502
            assert response.headers["Retry-After"] == "1"
            assert (await response.json())["error"]["code"] == "bad_gateway"
        assert requests == tries


async def test_a_worker_that_says_nothing(tmp_path: Path) -> None:
    """A question that hangs ends with proxy_read_timeout, and with an error of the API's shape."""
    requests = 0

    async def silent(client: Client) -> None:
        nonlocal requests
        if await client.request():
            requests += 1
            await client.gone()

    # As in the files, the time for another try is over before the first one's is.
    limits = {"proxy_read_timeout": "1s", "proxy_next_upstream_timeout": "500ms"}
    async with (
        wire(silent) as one,
        wire(silent) as two,
        edge(tmp_path, f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}", limits=limits) as nginx,
        nginx.client() as client,
        asyncio.timeout(30),
    ):
        async with client.post("/v1/query", json=QUESTION) as response:
            assert (response.status, response.content_type) == (504, "application/json")
            error = (await response.json())["error"]
            assert (error["type"], error["code"]) == ("timeout_error", "deadline_exceeded")
            assert error["request_id"] == response.headers["X-Request-ID"]
        assert requests == 1


async def test_an_answer_that_has_begun_is_not_begun_again(tmp_path: Path) -> None:
    """After the first byte another worker's answer could contradict what was said."""
    requests = 0

    async def broken(client: Client) -> None:
        nonlocal requests
        if await client.request():
            requests += 1
            await client.send(JSON.replace(b"Content-Length: 2", b"Content-Length: 99"))

    async with (
        wire(broken) as one,
        wire(broken) as two,
        edge(tmp_path, f"127.0.0.1:{one.port}", f"127.0.0.1:{two.port}") as nginx,
        nginx.client() as client,
    ):
        async with client.post("/v1/query", json=QUESTION) as response:
            assert response.status == 200
        assert requests == 1
