"""A server with more questions than it can take: whoever looks after it still gets through."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import asyncpg

from tests.e2e.conftest import ServerProcess, running

QUESTIONS = 60


async def gates(server: ServerProcess) -> dict[str, tuple[float, float]]:
    """Return how many permits are in use, and how many there are, by gate."""
    async with server.session.get(f"{server.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    found: dict[str, dict[str, float]] = {"used": {}, "limit": {}}
    for line in lines:
        if line.startswith("ragserve_gate_"):
            name, _, value = line.rpartition(" ")
            kind = name.partition("{")[0].removeprefix("ragserve_gate_")
            if kind in found:
                found[kind][name.partition('gate="')[2].partition('"')[0]] = float(value)
    return {gate: (found["used"][gate], found["limit"][gate]) for gate in found["limit"]}


async def test_health_and_administration_get_through(dsn: str, data_dir: Path) -> None:
    """With every place of the search taken and a queue before it, none of them waits for it."""
    async with running(data_dir, "--workers", "1", DATABASE_URL=dsn) as server:
        upload = {"id": "lunch", "text": "Lunch is at noon."}
        assert (await server.call("POST", "/v1/documents?wait=30", upload))[0] == 200
        every = {"name": "x", "scopes": ["query", "ingest", "admin"]}
        status, made = await server.call("POST", "/v1/keys", every)
        assert status == 201
        key = {"Authorization": f"Bearer {made['token']}"}
        statuses: Counter[int] = Counter()

        async def ask(session: aiohttp.ClientSession, number: int) -> None:
            body = {"query": f"lunch {number}", "mode": "dense", "timeout": 60}
            async with session.post("/v1/search", json=body) as response:
                await response.read()
                statuses[response.status] += 1

        connection = await asyncpg.connect(dsn)
        async with (
            asyncio.timeout(60),
            aiohttp.ClientSession(server.url, headers=key) as session,
            asyncio.TaskGroup() as asking,
            connection.transaction(),
        ):
            await connection.execute("LOCK TABLE chunks")
            for number in range(QUESTIONS):
                asking.create_task(ask(session, number))
            while (found := (await gates(server))["compute"])[0] < found[1]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            for _ in range(5):
                for method, path, body in (
                    ("GET", "/health", None),
                    ("GET", "/ready", None),
                    ("GET", "/v1/keys", None),
                    ("PUT", f"/v1/keys/{made['key']['id']}/limits", {}),
                    ("POST", "/v1/keys", {"name": "another"}),
                    ("DELETE", "/v1/cache", None),
                ):
                    async with session.request(method, path, json=body) as response:
                        assert response.status in (200, 201), await response.text()
            used, limit = (await gates(server))["compute"]
            assert used == limit
            assert not statuses, "the questions have not waited"
        await connection.close()
        assert statuses == {200: QUESTIONS}
