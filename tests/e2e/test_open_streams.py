"""Restarts while answers are being streamed: each stream ends as it should, and says how."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp

from tests.e2e.conftest import ServerProcess, running
from tests.e2e.test_supervisor import ask, prepare, workers
from tests.generate.test_dictation import STOP, piece
from tests.handlers.test_stream import frames
from tests.upstream.wire import END, HEAD, Client, said, then, wire

STREAMS = 50
CLIENTS = 200
WORDS = 40
PACE_S = 0.05


async def dictate(client: Client) -> None:
    """Answer in words that take two seconds."""
    if not await client.request():
        return
    await client.send(HEAD)
    for number in range(WORDS):
        await client.send(said(piece(f"w{number} ")))
        await asyncio.sleep(PACE_S)
    await client.send(STOP + END)


async def read(server: ServerProcess, number: int, begun: asyncio.Semaphore) -> list[str]:
    """Ask a question that no one else asks; return the names of the events that came."""
    body = {"query": f"when is lunch number {number} served", "stream": True, "mode": "lexical"}
    names = []
    async with server.session.post(f"{server.url}/v1/query", json=body) as response:
        assert response.status == 200
        async for name, data in frames(response):
            if name == "delta" and "delta" not in names:
                begun.release()
            names.append(name if name != "error" else json.dumps(data))
    return names


def model(port: int) -> dict[str, str]:
    """Return the settings of a server whose language model listens on ``port``."""
    return {
        "RAGSERVE_LLM__BASE_URL": f"http://127.0.0.1:{port}/v1",
        "RAGSERVE_LLM__MODEL": "m",
    }


async def test_a_reload_cuts_no_stream(data_dir: Path) -> None:
    """SIGHUP while 50 streams are open and 200 clients ask: every word and answer arrives."""
    async with (
        wire(dictate) as upstream,
        running(data_dir, "--workers", "2", **model(upstream.port)) as server,
    ):
        await prepare(server)
        await workers(server, 2)
        stop = asyncio.Event()
        statuses: list[int] = []
        begun = asyncio.Semaphore(0)

        async def client(session: aiohttp.ClientSession) -> None:
            while not stop.is_set():
                body = {"query": "lunch", "mode": "lexical"}
                async with session.post(f"{server.url}/v1/search", json=body) as response:
                    await response.read()
                    statuses.append(response.status)

        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            streams = [asyncio.create_task(read(server, n, begun)) for n in range(STREAMS)]
            for _ in range(STREAMS):
                async with asyncio.timeout(30):
                    await begun.acquire()
            async with asyncio.TaskGroup() as clients:
                for _ in range(CLIENTS):
                    clients.create_task(client(session))
                server.process.send_signal(signal.SIGHUP)
                await server.event("child_stopped", count=3)
                await server.event("ingest_ready", count=2)
                stop.set()
            heard = await asyncio.gather(*streams)
        assert {names[-1] for names in heard} == {"end"}
        assert {names.count("delta") for names in heard} == {WORDS}
        assert set(statuses) == {200}
        assert len(statuses) > CLIENTS
        assert await ask(server.url) == 200


async def test_a_stream_that_outlasts_the_grace_is_told(data_dir: Path) -> None:
    """SIGTERM: a stream still open after `server.drain_timeout_s` ends with an error event."""
    async with (
        wire(then(HEAD + said(piece("At noon ")))) as upstream,
        running(
            data_dir,
            "--workers",
            "1",
            RAGSERVE_SERVER__DRAIN_TIMEOUT_S="1",
            **model(upstream.port),
        ) as server,
    ):
        await prepare(server)
        begun = asyncio.Semaphore(0)
        streams = [asyncio.create_task(read(server, n, begun)) for n in range(5)]
        for _ in streams:
            async with asyncio.timeout(30):
                await begun.acquire()
        server.process.send_signal(signal.SIGTERM)
        for names in await asyncio.gather(*streams):
            assert json.loads(names[-1])["error"]["code"] == "unavailable"
        assert await server.stop() == 0
