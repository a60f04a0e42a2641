"""Clients that say how long they wait, at routes that are no questions."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from tests.conftest import Api

DOCUMENT = {"id": "a", "text": "Lunch is at noon."}
CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/documents", DOCUMENT),
    ("GET", "/v1/documents", None),
    ("GET", "/v1/documents/a", None),
    ("DELETE", "/v1/documents/a", None),
    ("POST", "/v1/collections", {"name": "b"}),
    ("GET", "/v1/collections", None),
    ("GET", "/v1/collections/default", None),
    ("DELETE", "/v1/collections/default", None),
    ("DELETE", "/v1/cache", None),
    ("GET", "/v1/models", None),
    ("POST", "/v1/keys", {"name": "b"}),
    ("GET", "/v1/keys", None),
]


async def call(api: Api, method: str, path: str, body: Any, wanted: str) -> tuple[int, Any]:
    """Return status and JSON of an answer to somebody who waits so long."""
    headers = {"X-Request-Timeout": wanted}
    async with api.client.request(method, path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def test_what_takes_too_long_is_given_up(api: Api, dsn: str) -> None:
    """By all of them, in time, without a connection left behind; and nothing has happened."""
    await api.ingest(DOCUMENT)
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(60), connection.transaction():
        await connection.execute("LOCK TABLE collections, keys")
        for method, path, body in CALLS:
            status, answer = await call(api, method, path, body, "0.05")
            assert (status, answer["error"]["code"]) == (504, "deadline_exceeded"), (method, path)
    await connection.close()
    assert repr(api.services.database).startswith("<Database 0 busy")
    _, collections = await api.get("/v1/collections")
    assert [one["name"] for one in collections["collections"]] == ["default"]
    assert (await api.get("/v1/documents/a"))[0] == 200


async def test_a_time_that_is_none(api: Api) -> None:
    """It is refused by name before anything is done."""
    for method, path, body in CALLS:
        status, answer = await call(api, method, path, body, "soon")
        assert (status, answer["error"]["param"]) == (400, "X-Request-Timeout"), (method, path)


async def test_documents_that_are_safe_are_told_in_time(api: Api, dsn: str) -> None:
    """Whoever wants to wait for them longer than it waits at all hears that they are queued."""
    await api.ingest(DOCUMENT)
    connection = await asyncpg.connect(dsn)
    async with asyncio.timeout(60), connection.transaction():
        await connection.execute("LOCK TABLE documents IN SHARE MODE")  # it cannot be stored
        body = {"id": "b", "text": "Dinner is at six."}
        status, answer = await call(api, "POST", "/v1/documents?wait=30", body, "2")
        assert (status, answer["documents"][0]["state"]) in ((202, "queued"), (202, "running"))
    await connection.close()
