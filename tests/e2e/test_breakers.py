"""Two workers of a host and a language model that has failed: one of them tries it again."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.e2e.conftest import ServerProcess, running
from tests.handlers.test_ask import OFFICE
from tests.upstream.wire import Client, wire

BROKEN = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
FIRST = asyncio.FIRST_COMPLETED
_numbers = itertools.count()


async def _ask(server: ServerProcess, session: aiohttp.ClientSession) -> bool:
    """Ask over a worker's connection; return whether the answer had to do without the model."""
    # Every time another question: the same one would wait for the trial with whoever makes it.
    body = {"query": f"When is lunch served? {next(_numbers)}"}
    async with session.post(f"{server.url}/v1/query", json=body) as response:
        assert response.status == 200
        return (await response.json()).get("degraded") == ["llm"]


async def test_one_worker_of_a_host_tries(data_dir: Path) -> None:
    """While its trial hangs no other question reaches the model, over whichever worker it comes."""
    hanging = False
    asked = 0
    trial = asyncio.Event()

    async def script(client: Client) -> None:
        nonlocal asked
        await client.request()
        asked += 1
        if not hanging:
            await client.send(BROKEN)
            return
        trial.set()
        await client.gone()

    async with wire(script) as state, AsyncExitStack() as stack, asyncio.timeout(120):
        settings = {
            "RAGSERVE_LLM__BASE_URL": f"http://127.0.0.1:{state.port}/v1",
            "RAGSERVE_LLM__ATTEMPTS": "1",
        }
        server = await stack.enter_async_context(running(data_dir, "--workers", "2", **settings))
        await server.event("worker_ready", count=2)
        upload = {"documents": [OFFICE]}
        assert (await server.call("POST", "/v1/documents?wait=30", upload))[0] == 200
        # Each session keeps one connection, and so one worker; of sixteen both workers have some.
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
            )
            for _ in range(16)
        ]
        for _ in range(4):  # three failures in a row open a breaker
            await asyncio.gather(*(_ask(server, one) for one in sessions))
        hanging = True
        before = asked
        tried = asyncio.create_task(trial.wait())
        while not trial.is_set():
            asking = {one: asyncio.create_task(_ask(server, one)) for one in sessions}
            await asyncio.wait({tried, asyncio.gather(*asking.values())}, return_when=FIRST)
        while sum(task.done() for task in asking.values()) < len(sessions) - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        free = [one for one, task in asking.items() if task.done()]
        for _ in range(4):
            assert all(await asyncio.gather(*(_ask(server, one) for one in free)))
            await asyncio.sleep(0.3)  # both workers' pauses end meanwhile: half a second at first
        assert asked == before + 1, "each worker has tried by itself"
        for task in asking.values():
            task.cancel()
        await asyncio.gather(*asking.values(), return_exceptions=True)
