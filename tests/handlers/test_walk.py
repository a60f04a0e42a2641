"""All routes, with the names of what is another's: answered as if nothing had such a name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ragserve.store.keys import create_key
from tests.conftest import Api

DOCUMENT = {"id": "secret", "text": "The vault opens at midnight."}
OF_ITS_OWN = {"Date", "X-Request-ID", "Server-Timing"}
"""Headers that differ between any two answers."""
PUBLIC = {"/health", "/ready", "/metrics", "/openapi.json"}


class Names(NamedTuple):
    """A collection, a document in it, a key."""

    collection: str
    document: str
    key: str


NONE = Names("absent", "absent", "0123456789ab")
Request = tuple[str, Any]
# For each route what is sent, by the names in it; those that make something come last.
CALLS: dict[tuple[str, str], Callable[[Names], Request]] = {
    ("POST", "/v1/query"): lambda n: (
        "/v1/query",
        {"query": "when does the vault open", "collection": n.collection},
    ),
    ("POST", "/v1/search"): lambda n: (
        "/v1/search",
        {"query": "vault", "collection": n.collection},
    ),
    ("POST", "/v1/chat/completions"): lambda n: (
        "/v1/chat/completions",
        {"model": f"rag:{n.collection}", "messages": [{"role": "user", "content": "vault"}]},
    ),
    ("POST", "/v1/embeddings"): lambda n: (
        "/v1/embeddings",
        {"model": f"rag:{n.collection}", "input": "vault"},
    ),
    ("GET", "/v1/models"): lambda _: ("/v1/models", None),
    ("GET", "/v1/models/{name}"): lambda n: (f"/v1/models/rag:{n.collection}", None),
    ("GET", "/v1/documents"): lambda n: (f"/v1/documents?collection={n.collection}", None),
    ("GET", "/v1/documents/{id}"): lambda n: (
        f"/v1/documents/{n.document}?collection={n.collection}",
        None,
    ),
    ("DELETE", "/v1/documents/{id}"): lambda n: (
        f"/v1/documents/{n.document}?collection={n.collection}",
        None,
    ),
    ("GET", "/v1/collections"): lambda _: ("/v1/collections", None),
    ("GET", "/v1/collections/{name}"): lambda n: (f"/v1/collections/{n.collection}", None),
    ("DELETE", "/v1/collections/{name}"): lambda n: (f"/v1/collections/{n.collection}", None),
    ("DELETE", "/v1/cache"): lambda n: (f"/v1/cache?collection={n.collection}", None),
    ("GET", "/v1/keys"): lambda _: ("/v1/keys", None),
    ("POST", "/v1/keys"): lambda _: ("/v1/keys", {"name": ""}),
    ("POST", "/v1/keys/{id}/rotate"): lambda n: (f"/v1/keys/{n.key}/rotate", {}),
    ("PUT", "/v1/keys/{id}/limits"): lambda n: (f"/v1/keys/{n.key}/limits", {}),
    ("DELETE", "/v1/keys/{id}"): lambda n: (f"/v1/keys/{n.key}", None),
    ("POST", "/v1/collections"): lambda n: ("/v1/collections", {"name": n.collection}),
    ("POST", "/v1/documents"): lambda n: (
        "/v1/documents",
        {"id": n.document, "collection": n.collection, "text": "Another one."},
    ),
}
NUMBER = re.compile(rb'"(job|version)": ?[0-9]+')


async def answer(api: Api, token: str, method: str, names: Names, request: Request) -> object:
    """Return all of an answer but what differs between any two, with ``names`` taken out."""
    path, body = request
    headers = {"Authorization": f"Bearer {token}"}
    async with api.client.request(method, path, json=body, headers=headers) as response:
        said = await response.read()
        own = response.headers["X-Request-ID"].encode()
        for name in {own.decode(), *names}:
            said = said.replace(name.encode(), b"?" * len(name))
        kept = {name: value for name, value in response.headers.items() if name not in OF_ITS_OWN}
        return response.status, kept, NUMBER.sub(rb"\1", said) if response.status < 300 else said


@pytest.mark.parametrize("viewer", ["another tenant's", "for another collection"])
async def test_what_is_anothers_does_not_exist(api: Api, viewer: str) -> None:
    """Status, headers and body are the same, byte for byte, and nothing has happened to it."""
    database = api.services.database
    every = ["query", "ingest", "admin"]
    owner, owners_token = await create_key(database, tenant="acme", name="x", scopes=every)
    theirs = Names("papers", "secret", owner.id)
    stranger = viewer == "another tenant's"
    _, token = await create_key(
        database,
        tenant="other" if stranger else "acme",
        name="y",
        scopes=every,
        collections=None if stranger else ["open"],
    )
    headers = {"Authorization": f"Bearer {owners_token}"}
    upload = {"collection": "papers", "documents": [DOCUMENT]}
    async with api.client.post("/v1/documents?wait=30", json=upload, headers=headers) as response:
        assert response.status == 200
    router = api.client.app.router  # type: ignore[union-attr]
    served = {
        (route.method, route.resource.canonical)
        for route in router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert {route for route in served if route[1] not in PUBLIC} == set(CALLS)
    for (method, path), call in CALLS.items():
        if not stranger and "/keys" in path:
            continue  # these are the tenant's, and so is the viewer
        found = await answer(api, token, method, theirs, call(theirs))
        absent = await answer(api, token, method, NONE, call(NONE))
        assert found == absent, (method, path)
    for path in ("/v1/documents/secret?collection=papers", "/v1/collections/papers", "/v1/keys"):
        async with api.client.get(path, headers=headers) as response:
            assert response.status == 200, path
    async with api.client.post(
        "/v1/search", json={"query": "vault", "collection": "papers"}, headers=headers
    ) as response:
        (result,) = (await response.json())["results"]
        assert result["text"] == DOCUMENT["text"]
