"""The audit: what matters for security, by whom, in which request, and never a token."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from ragserve.store.keys import create_key
from tests.conftest import Api

REQUEST_ID = "the-request"
DOCUMENT = {"documents": [{"id": "a", "text": "Lunch is at noon."}]}


class Caller:
    """A client with a key; keeps what the audit says of its last call."""

    def __init__(self, api: Api, key_id: str, token: str) -> None:
        self._api = api
        self.key_id = key_id
        self.token = token
        self.logs: list[Any] = []

    async def __call__(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> Any:
        headers = {"Authorization": f"Bearer {token or self.token}", "X-Request-ID": REQUEST_ID}
        options: dict[str, Any] = {} if body is None else {"json": body}
        with capture_logs() as logs:
            async with self._api.client.request(method, path, headers=headers, **options) as answer:
                said = await answer.json()
        # What the notification says comes when it comes.
        self.logs = [log for log in logs if log["event"] not in ("request", "key_changed")]
        return said

    def said(self, event: str, **more: object) -> None:
        """Check that the last call has left exactly this event."""
        assert self.logs == [
            {
                "event": event,
                "log_level": "info",
                "tenant": "acme",
                "by": self.key_id,
                "request_id": REQUEST_ID,
                **more,
            }
        ]


@pytest.fixture
async def admin(api: Api) -> Caller:
    key, token = await create_key(
        api.services.database, tenant="acme", name="x", scopes=["query", "ingest", "admin"]
    )
    return Caller(api, key.id, token)


async def test_keys(admin: Caller) -> None:
    """Made, limited, rotated, revoked: each with both keys' ids."""
    made = await admin("POST", "/v1/keys", {"name": "y", "scopes": ["query", "ingest"]})
    key_id, token = made["key"]["id"], made["token"]
    admin.said("key_created", key=key_id, scopes=["query", "ingest"])
    await admin("PUT", f"/v1/keys/{key_id}/limits", {"query_per_minute": 5})
    admin.said("key_limited", key=key_id, limits={"query_per_minute": 5})
    rotated = await admin("POST", f"/v1/keys/{key_id}/rotate", {})
    admin.said("key_rotated", key=rotated["key"]["id"], replaces=key_id)
    await admin("DELETE", f"/v1/keys/{key_id}")
    admin.said("key_revoked", key=key_id)
    await admin("GET", "/v1/models", token=token)
    (refused,) = admin.logs
    assert {**refused, "remote": ""} == {
        "event": "key_refused",
        "log_level": "warning",
        "remote": "",
        "key": key_id,
        "tenant": "acme",
        "reason": "revoked",
    }


async def test_what_is_refused(api: Api, admin: Caller) -> None:
    """With the reason, whose it is where that is known, and nothing of the secret."""
    reader, token = await create_key(
        api.services.database, tenant="acme", name="r", scopes=["query"]
    )
    secret = token.split("_", 2)[2]
    for wrong, key_id, tenant, reason in (
        (token + "x", reader.id, "acme", "wrong"),
        ("rs_0123456789ab_" + secret, "0123456789ab", None, "unknown"),
        (secret, "", None, "unknown"),
    ):
        await admin("GET", "/v1/models", token=wrong)
        (refused,) = admin.logs
        assert (refused["event"], refused["key"]) == ("key_refused", key_id)
        assert (refused["tenant"], refused["reason"]) == (tenant, reason)
        assert secret not in str(admin.logs)
    await admin("GET", "/v1/keys", token=token)
    (refused,) = admin.logs
    assert (refused["event"], refused["key"]) == ("scope_refused", reader.id)
    assert (refused["tenant"], refused["scope"]) == ("acme", "admin")


async def test_administration(api: Api, admin: Caller) -> None:
    """Collections made, by a document too, and deleted; documents deleted, caches cleared.

    A failed call says none of it.
    """
    await admin("POST", "/v1/collections", {"name": "papers"})
    admin.said("collection_created", collection="papers")
    await admin("POST", "/v1/collections", {"name": "papers"})
    assert admin.logs == []
    await admin("POST", "/v1/documents?wait=30", {**DOCUMENT, "collection": "papers"})
    await admin("POST", "/v1/documents?wait=30", {**DOCUMENT, "collection": "letters"})
    (created,) = (log for log in admin.logs if log["event"] == "collection_created")
    assert (created["collection"], created["by"]) == ("letters", admin.key_id)
    await admin("DELETE", "/v1/collections/letters")
    await admin("DELETE", "/v1/cache")
    admin.said("cache_cleared", collections=["papers"])
    await admin("DELETE", "/v1/documents/none?collection=papers")
    assert admin.logs == []
    await admin("DELETE", "/v1/documents/a?collection=papers")
    admin.said("document_deleted", collection="papers", document="a")
    await admin("DELETE", "/v1/collections/papers")
    admin.said("collection_deleted", collection="papers")
