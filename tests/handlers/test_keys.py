"""Keys and tenants: what a key is good for, and that nobody sees what is another's."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ragserve.config import Config
from ragserve.flow.address import is_loopback
from ragserve.store.keys import create_key, revoke_key
from tests.conftest import Api, configured, serving

DOCUMENT = {"id": "secret", "text": "The vault opens at midnight with the word lantern."}
QUESTION = {"query": "when does the vault open"}


class Caller:
    """A client with a key."""

    def __init__(self, api: Api, token: str | None) -> None:
        self._api = api
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def __call__(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        options: dict[str, Any] = {} if body is None else {"json": body}
        async with self._api.client.request(
            method, path, headers=self._headers, **options
        ) as response:
            return response.status, await response.json()


async def make(caller: Caller, **fields: object) -> str:
    """Make a key and return its token."""
    status, made = await caller("POST", "/v1/keys", {"name": "test", **fields})
    assert status == 201, made
    return str(made["token"])


async def until_refused(caller: Caller, path: str) -> None:
    """Wait until a key is good no more: nothing tells its holder."""
    async with asyncio.timeout(30):
        while (await caller("GET", path))[0] == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def admin(api: Api) -> Caller:
    """The first key, made over loopback as long as there is none."""
    token = await make(Caller(api, None), scopes=["query", "ingest", "admin"])
    return Caller(api, token)


@pytest.fixture
async def stranger(api: Api, admin: Caller) -> Caller:
    """Another tenant's administrator."""
    _, token = await create_key(
        api.services.database, tenant="other", name="x", scopes=["query", "ingest", "admin"]
    )
    return Caller(api, token)


async def test_with_the_first_key_anonymous_access_ends(api: Api, admin: Caller) -> None:
    """Until then loopback may do everything; afterwards a key is needed, and an old one is not."""
    nobody = Caller(api, None)
    assert (await admin("GET", "/v1/collections"))[0] == 200
    await until_refused(nobody, "/v1/collections")
    status, refused = await nobody("POST", "/v1/query", QUESTION)
    assert (status, refused["error"]["code"]) == (401, "invalid_api_key")
    assert refused["error"]["message"] == "a key is needed: Authorization: Bearer rs_…"
    for path in ("/health", "/ready", "/openapi.json"):
        assert (await nobody("GET", path))[0] == 200
    async with api.client.get("/v1/models", headers={"Authorization": "Basic x"}) as response:
        assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_scopes(api: Api, admin: Caller) -> None:
    """A key for questions neither writes nor administers."""
    reader = Caller(api, await make(admin))
    writer = Caller(api, await make(admin, scopes=["ingest"]))
    body = {"documents": [DOCUMENT]}
    status, refused = await reader("POST", "/v1/documents", body)
    assert (status, refused["error"]["type"]) == (403, "permission_error")
    assert refused["error"]["message"].endswith("it needs scope 'ingest', it has query")
    assert (await writer("POST", "/v1/documents?wait=30", body))[0] == 200
    assert (await writer("POST", "/v1/query", QUESTION))[0] == 403
    assert (await reader("DELETE", "/v1/cache"))[0] == 403
    assert (await reader("GET", "/v1/keys"))[0] == 403
    assert (await reader("POST", "/v1/query", QUESTION))[1]["citations"]


async def test_nothing_of_another_tenant(api: Api, admin: Caller, stranger: Caller) -> None:
    """Not found, not listed, not counted, not cached; and clearing, deleting do not reach over."""
    assert (await admin("POST", "/v1/documents?wait=30", {"documents": [DOCUMENT]}))[0] == 200
    for _ in range(2):  # the second time from memory
        status, answer = await admin("POST", "/v1/query", QUESTION)
        assert "midnight" in answer["answer"]
    missing = [
        ("POST", "/v1/query", QUESTION),
        ("POST", "/v1/search", QUESTION),
        (
            "POST",
            "/v1/chat/completions",
            {"model": "rag", "messages": [{"role": "user", "content": QUESTION["query"]}]},
        ),
        ("GET", "/v1/documents", None),
        ("GET", "/v1/documents/secret", None),
        ("DELETE", "/v1/documents/secret", None),
        ("GET", "/v1/collections/default", None),
        ("DELETE", "/v1/collections/default", None),
        ("DELETE", "/v1/cache?collection=default", None),
    ]
    for method, path, body in missing:
        status, answer = await stranger(method, path, body)
        assert status == 404, (path, answer)
        assert "midnight" not in str(answer)
    assert (await stranger("GET", "/v1/collections"))[1] == {"collections": []}
    models = (await stranger("GET", "/v1/models"))[1]["data"]
    assert "rag:default" not in [model["id"] for model in models]
    assert len((await stranger("GET", "/v1/keys"))[1]["keys"]) == 1
    assert (await stranger("DELETE", "/v1/cache"))[1] == {"collections": []}
    other = {"id": "secret", "text": "The vault opens at dawn."}
    assert (await stranger("POST", "/v1/documents?wait=30", {"documents": [other]}))[0] == 200
    for caller, word in ((stranger, "dawn"), (admin, "midnight")) * 2:
        assert word in (await caller("POST", "/v1/query", QUESTION))[1]["answer"]


async def test_a_key_for_some_collections(api: Api, admin: Caller) -> None:
    """Others do not exist for it, be they in memory or not."""
    for name in ("open", "closed"):
        body = {"collection": name, "documents": [DOCUMENT]}
        assert (await admin("POST", "/v1/documents?wait=30", body))[0] == 200
        assert (await admin("POST", "/v1/query", {**QUESTION, "collection": name}))[0] == 200
    guest = Caller(
        api, await make(admin, scopes=["query", "ingest", "admin"], collections=["open"])
    )
    for _ in range(2):
        assert (await guest("POST", "/v1/query", {**QUESTION, "collection": "open"}))[0] == 200
        status, refused = await guest("POST", "/v1/query", {**QUESTION, "collection": "closed"})
        assert (status, refused["error"]["message"]) == (404, "collection 'closed' does not exist")
    listed = (await guest("GET", "/v1/collections"))[1]["collections"]
    assert [collection["name"] for collection in listed] == ["open"]
    body = {"collection": "closed", "documents": [DOCUMENT]}
    assert (await guest("POST", "/v1/documents", body))[0] == 404
    assert (await guest("DELETE", "/v1/collections/closed"))[0] == 404
    assert (await guest("DELETE", "/v1/cache"))[0] == 403


async def test_revocation_and_rotation(api: Api, admin: Caller) -> None:
    """A revoked key is refused within a second; a rotated one overlaps with its successor."""
    token = await make(admin)
    key_id = token.split("_")[1]
    caller = Caller(api, token)
    assert (await caller("GET", "/v1/models"))[0] == 200
    status, rotated = await admin("POST", f"/v1/keys/{key_id}/rotate", {"grace_s": 60})
    assert status == 201
    assert rotated["key"]["expires_at"] is None
    successor = Caller(api, rotated["token"])
    assert (await caller("GET", "/v1/models"))[0] == 200
    assert (await successor("GET", "/v1/models"))[0] == 200
    with capture_logs() as logs:
        assert (await admin("DELETE", f"/v1/keys/{key_id}"))[0] == 200
    event = next(log for log in logs if log["event"] == "key_revoked")
    assert (event["key"], event["tenant"]) == (key_id, "default")
    await until_refused(caller, "/v1/models")
    assert (await successor("GET", "/v1/models"))[0] == 200
    assert (await admin("POST", f"/v1/keys/{key_id}/rotate", {}))[0] == 404
    assert (await admin("DELETE", "/v1/keys/none"))[0] == 404
    # Elsewhere, by another process: the database says so.
    await revoke_key(api.services.database, rotated["key"]["id"])
    await until_refused(successor, "/v1/models")


async def test_an_expired_key(api: Api, admin: Caller) -> None:
    """It ends by itself, known or not; one that would end before it begins is refused."""
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    caller = Caller(api, await make(admin, expires_at=soon.isoformat()))
    assert (await caller("GET", "/v1/models"))[0] == 200
    await until_refused(caller, "/v1/models")
    body = {"name": "x", "expires_at": "2001-01-01T00:00:00Z"}
    status, refused = await admin("POST", "/v1/keys", body)
    assert (status, refused["error"]["param"]) == (400, "expires_at")


async def test_guessing_is_slowed_down(tmp_path: Path, dsn: str) -> None:
    """After `auth.failures_per_minute` wrong keys an address waits; a good key is still good."""
    async with serving(configured(auth__failures_per_minute=3), tmp_path, dsn, ingest=False) as api:
        admin = Caller(api, await make(Caller(api, None), scopes=["admin", "query"]))
        assert (await admin("GET", "/v1/keys"))[0] == 200
        guesses = [await Caller(api, f"rs_{n:012d}_guess")("GET", "/v1/models") for n in range(5)]
        assert [status for status, _ in guesses] == [401, 401, 401, 429, 429]
        assert guesses[-1][1]["error"]["type"] == "rate_limit_error"
        assert (await admin("GET", "/v1/keys"))[0] == 200
        known = next(iter(api.services.keyring._known.values())).principal
        assert known.id in repr(known)


async def test_secrets_are_not_kept_or_told(api: Api, admin: Caller) -> None:
    """Neither the database, nor a list, nor the log of a refusal has a token in it."""
    token = await make(admin)
    row = await api.services.database.fetchrow(
        "SELECT string_agg(keys::text, ' ') AS text FROM keys"
    )
    assert token.split("_", 2)[2] not in row["text"]
    assert token.split("_", 2)[2] not in str(await admin("GET", "/v1/keys"))
    with capture_logs() as logs:
        assert (await Caller(api, f"{token}x")("GET", "/v1/models"))[0] == 401
    (refused,) = [log for log in logs if log["event"] == "key_refused"]
    assert refused["key"] == token.split("_")[1]
    assert token not in str(logs)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": ""}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "collections": ["a/b"]}, "collection"),
    ],
)
async def test_a_key_must_make_sense(api: Api, body: dict[str, Any], param: str) -> None:
    """What cannot be is refused by name."""
    status, refused = await api.post("/v1/keys", body)
    assert (status, refused["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
    ],
)
def test_who_is_on_this_machine(address: str, expected: bool) -> None:
    """Loopback in all its forms, and Unix sockets."""
    assert is_loopback(address) is expected


@pytest.fixture
async def open_api(tmp_path: Path, dsn: str) -> AsyncIterator[Api]:
    """A server that lets anybody ask."""
    config: Config = configured(auth__allow_anonymous=True)
    async with serving(config, tmp_path, dsn) as api:
        yield api


async def test_anybody_may_ask_where_allowed(open_api: Api) -> None:
    """With keys beside, who has none reads the default tenant and writes nothing."""
    nobody = Caller(open_api, None)
    admin = Caller(open_api, await make(nobody, scopes=["ingest", "admin"]))
    assert (await admin("POST", "/v1/documents?wait=30", {"documents": [DOCUMENT]}))[0] == 200
    assert (await nobody("POST", "/v1/query", QUESTION))[0] == 200
    await until_refused(nobody, "/v1/keys")
    assert (await nobody("POST", "/v1/documents", {"documents": [DOCUMENT]}))[0] == 403
    assert (await Caller(open_api, "rs_0_wrong")("POST", "/v1/query", QUESTION))[0] == 401
