"""What is changed about a key counts at every worker within a second, the lane included."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from ragserve.ingest.run import ingesting
from ragserve.schema import KeyLimits
from ragserve.store.keys import create_key, limit_key, revoke_key
from tests.conftest import configured
from tests.worker.test_lane import Server, express, served

QUESTION = {"query": "When is lunch served?"}
DOCUMENT = {"id": "lunch", "text": "Lunch is served at noon."}
BOUND_S = 1.0


class Two(NamedTuple):
    """Workers on one database, a client, and the first key, which may do everything."""

    servers: list[Server]
    session: aiohttp.ClientSession
    admin: str

    async def call(
        self, server: Server, token: str, method: str, path: str, body: object = None
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and JSON of an answer."""
        headers = {"Authorization": f"Bearer {token}"}
        options: dict[str, Any] = {} if body is None else {"json": body}
        async with self.session.request(
            method, server.url + path, headers=headers, **options
        ) as response:
            return response.status, dict(response.headers), await response.json()

    async def ask(self, server: Server, token: str) -> tuple[int, dict[str, str], Any]:
        """Ask what is known."""
        return await self.call(server, token, "POST", "/v1/query", QUESTION)


@pytest.fixture
async def two(tmp_path: Path, dsn: str) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(served(tmp_path, dsn)) for _ in range(2)]
        await stack.enter_async_context(ingesting(configured(), tmp_path, dsn))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        _, admin = await create_key(
            servers[0].services.database,
            tenant="default",
            name="admin",
            scopes=["query", "ingest", "admin"],
        )
        found = Two(servers, session, admin)
        status, _, _ = await found.call(
            servers[0], admin, "POST", "/v1/documents?wait=30", {"documents": [DOCUMENT]}
        )
        assert status == 200
        yield found


async def known_to_the_lane(two: Two, token: str) -> None:
    """Ask both until their lanes answer."""
    for server in two.servers:
        async with asyncio.timeout(30):
            while True:
                before = express()
                assert (await two.ask(server, token))[0] == 200
                if express() > before:
                    break
                await asyncio.sleep(0.01)


async def test_a_revoked_key_is_refused(two: Two) -> None:
    """No request that comes more than a second after the revocation is answered."""
    key, token = await create_key(
        two.servers[0].services.database, tenant="default", name="x", scopes=["query"]
    )
    await known_to_the_lane(two, token)
    await revoke_key(two.servers[0].services.database, key.id)
    revoked_at = time.monotonic()

    async def last_answer(server: Server) -> float:
        """Return when the last question came that was answered."""
        last = revoked_at
        async with asyncio.timeout(30):
            while True:
                asked_at = time.monotonic()
                status, _, _ = await two.ask(server, token)
                if status == 401:
                    return last
                assert status == 200
                last = asked_at

    for last in await asyncio.gather(*(last_answer(server) for server in two.servers)):
        assert last - revoked_at <= BOUND_S


async def test_a_keys_own_limits(two: Two) -> None:
    """Given, changed and taken away; told in the head and by the list, the same in both lanes."""
    status, _, made = await two.call(
        two.servers[0],
        two.admin,
        "POST",
        "/v1/keys",
        {"name": "x", "limits": {"query_per_minute": 1000}},
    )
    assert (status, made["key"]["limits"]) == (201, {"query_per_minute": 1000})
    token, path = made["token"], f"/v1/keys/{made['key']['id']}/limits"
    await known_to_the_lane(two, token)

    async def policies(expected: str | None) -> None:
        """Wait for the policy; the one before is told for a second at most."""
        changed_at = time.monotonic()
        for server in two.servers:
            async with asyncio.timeout(30):
                while True:
                    asked_at, before = time.monotonic(), express()
                    status, headers, _ = await two.ask(server, token)
                    assert status == 200
                    if headers.get("RateLimit-Policy") == expected:
                        if express() > before:
                            break
                        continue
                    assert asked_at - changed_at <= BOUND_S

    await policies('"query";q=1000;w=60')
    for limits, policy in (
        ({"query_per_minute": 500, "tokens_per_minute": 7}, '"query";q=500;w=60'),
        ({}, None),
    ):
        status, _, changed = await two.call(two.servers[0], two.admin, "PUT", path, limits)
        assert (status, changed["limits"]) == (200, limits)
        await policies(policy)
    # By another process, straight in the database.
    database = two.servers[1].services.database
    await limit_key(database, made["key"]["id"], KeyLimits(query_per_minute=2))
    async with asyncio.timeout(30):
        while (await two.ask(two.servers[0], token))[0] != 429:  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.01)
    _, _, listed = await two.call(two.servers[0], two.admin, "GET", "/v1/keys")
    assert listed["keys"][1]["limits"] == {"query_per_minute": 2}


async def test_limits_of_a_key_must_make_sense(two: Two) -> None:
    """Unknown names and negative numbers are refused by name; a successor has the same limits."""
    server, admin = two.servers[0], two.admin
    for limits, param in (
        ({"query_per_second": 1}, "limits"),
        ({"query_per_minute": -1}, "limits.query_per_minute"),
    ):
        body = {"name": "x", "limits": limits}
        status, _, refused = await two.call(server, admin, "POST", "/v1/keys", body)
        assert (status, refused["error"]["param"]) == (400, param)
    body = {"name": "x", "limits": {"query_per_minute": 0}}
    _, _, made = await two.call(server, admin, "POST", "/v1/keys", body)
    path = f"/v1/keys/{made['key']['id']}"
    status, _, successor = await two.call(server, admin, "POST", f"{path}/rotate", {})
    assert (status, successor["key"]["limits"]) == (201, {"query_per_minute": 0})
    assert (await two.call(server, admin, "DELETE", path))[0] == 200
    assert (await two.call(server, admin, "PUT", f"{path}/limits", {}))[0] == 404
