"""Documents over HTTP: handed in, looked up, replaced, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ragserve.config import Config
from ragserve.store.changes import Changes, read_changes
from tests.conftest import DOCUMENTS, Api, configured, serving


async def test_accepted_documents_are_searchable_soon(api: Api) -> None:
    """202 names the jobs; with wait the answer comes when the documents are searchable."""
    status, answer = await api.post("/v1/documents", {"id": "a", "text": "first words"})
    assert status == 202
    assert (answer["collection"], answer["documents"][0]["id"]) == ("default", "a")
    assert answer["documents"][0]["state"] == "queued"
    status, answer = await api.post("/v1/documents?wait=30", {"id": "b", "text": "more words"})
    assert (status, answer["documents"][0]["state"]) == (200, "ready")
    _, found = await api.post("/v1/search", {"query": "more", "mode": "lexical"})
    assert [result["document_id"] for result in found["results"]] == ["b"]


async def test_stored_is_not_yet_searchable(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for the index when the time is up is a 202: words would not find it."""
    free = asyncio.Event()

    async def read_later(*arguments: Any, **options: Any) -> Changes | None:
        await free.wait()
        return await read_changes(*arguments, **options)

    monkeypatch.setattr("ragserve.ingest.indexing.read_changes", read_later)
    status, answer = await api.post("/v1/documents?wait=0.5", {"id": "a", "text": "words"})
    assert (status, answer["documents"][0]["state"]) == (202, "queued")
    _, document = await api.get("/v1/documents/a")
    assert document["state"] == "ready", "stored it is"
    free.set()
    status, answer = await api.post("/v1/documents?wait=30", {"id": "b", "text": "words"})
    assert (status, answer["documents"][0]["state"]) == (200, "ready")
    _, found = await api.post("/v1/search", {"query": "words", "mode": "lexical"})
    assert {result["document_id"] for result in found["results"]} == {"a", "b"}


async def test_ids_are_generated(api: Api) -> None:
    """A document without an id gets one that finds it."""
    _, answer = await api.post("/v1/documents?wait=30", {"text": "some words"})
    (item,) = answer["documents"]
    status, document = await api.get(f"/v1/documents/{item['id']}")
    assert (status, document["state"], document["chunks"]) == (200, "ready", 1)


async def test_unchanged_documents_are_skipped(api: Api) -> None:
    """The same content again makes no job and no new version."""
    await api.ingest({"id": "a", "text": "words"})
    _, before = await api.get("/v1/collections/default")
    _, answer = await api.post("/v1/documents?wait=5", {"id": "a", "text": "words"})
    assert answer["documents"] == [{"id": "a", "state": "unchanged", "job": None}]
    _, after = await api.get("/v1/collections/default")
    assert before == after


async def test_a_changed_document_replaces_its_chunks(api: Api) -> None:
    """New content replaces the old everywhere and raises the version."""
    await api.ingest({"id": "a", "text": "about zebras"})
    await api.ingest({"id": "a", "text": "about giraffes"})
    for mode in ("hybrid", "lexical"):
        _, found = await api.post("/v1/search", {"query": "zebras giraffes", "mode": mode})
        assert [result["text"] for result in found["results"]] == ["about giraffes"]
    _, collection = await api.get("/v1/collections/default")
    assert collection == {
        "name": "default",
        "documents": 1,
        "chunks": 1,
        "pending": 0,
        "failed": 0,
        "version": 2,
        "embedder": "hashing-384",
        "language": "en",
    }


async def test_deleting_removes_everything(api: Api) -> None:
    """A deleted document is gone from look-ups and from every search."""
    await api.ingest({"id": "a", "text": "zebras"}, {"id": "b", "text": "lions"})
    assert await api.delete("/v1/documents/a") == (200, {"id": "a", "deleted": True})
    assert (await api.get("/v1/documents/a"))[0] == 404
    assert (await api.delete("/v1/documents/a"))[0] == 404
    _, found = await api.post("/v1/search", {"query": "zebras", "mode": "dense"})
    assert [result["document_id"] for result in found["results"]] == ["b"]
    await api.ingest({"id": "c", "text": "a later change, which the index takes in order"})
    _, found = await api.post("/v1/search", {"query": "zebras", "mode": "lexical"})
    assert found["results"] == []


async def test_listing_pages_through_all(api: Api) -> None:
    """Cursors lead through all documents once, in the order of their ids."""
    documents = [{"id": f"doc/{n:03}", "text": f"words {n}"} for n in range(120)]
    await api.ingest(*documents)
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        _, page = await api.get(f"/v1/documents?cursor={cursor}")
        seen += [document["id"] for document in page["documents"]]
        cursor = page["cursor"]
    assert seen == [document["id"] for document in documents]


async def test_files_are_uploaded_as_multipart(api: Api) -> None:
    """Files of several formats travel in one request; the broken one is named, the rest is in."""
    form = aiohttp.FormData()
    form.add_field("collection", "files")
    form.add_field("metadata", '{"source": "handbook"}')
    names = ["handbook/leave.md", "handbook/onboarding.pdf", "broken/truncated.pdf"]
    for name in names:
        content = (DOCUMENTS / name).read_bytes()
        form.add_field("file", content, filename=name.rpartition("/")[2])
    async with api.client.post("/v1/documents?wait=60", data=form) as response:
        answer = await response.json()
        assert response.status == 200, answer
    states = {item["id"]: item["state"] for item in answer["documents"]}
    assert states == {"leave.md": "ready", "onboarding.pdf": "ready", "truncated.pdf": "failed"}
    assert answer["documents"][2]["error"].startswith("truncated.pdf: ")
    _, page = await api.get("/v1/documents?collection=files")
    assert [document["state"] for document in page["documents"]] == ["ready", "ready", "failed"]
    _, found = await api.post(
        "/v1/search",
        {"query": "onboarding", "collection": "files", "filter": {"source": "handbook"}},
    )
    pages = [r["page"] for r in found["results"] if r["document_id"] == "onboarding.pdf"]
    assert pages
    assert set(pages) <= {1, 2, 3}


async def test_limits_name_the_document(config: Config, tmp_path: Path, dsn: str) -> None:
    """Too many, too large, doubled and empty uploads are refused as a whole, by name."""
    small = configured(limits__document_bytes=1024, limits__documents_per_request=2)
    cases = [
        ({"documents": []}, 400, "documents: the upload holds none"),
        ({"documents": [{"text": "x"}] * 3}, 413, "3 in one upload"),
        ({"id": "big", "text": "x" * 1025}, 413, "documents[0] (big): 1025 bytes"),
        ({"documents": [{"id": "a", "text": "x"}] * 2}, 400, "documents[1].id: 'a' is the id of"),
        ({"id": "a", "text": "x", "metadata": {"k": "\0"}}, 400, "NUL"),
        ({"id": "", "text": "x"}, 400, "id: Expected `str` of length >= 1"),
    ]
    async with serving(small, tmp_path, dsn, ingest=False) as api:
        for body, expected, message in cases:
            status, answer = await api.post("/v1/documents", body)
            assert status == expected, answer
            assert message in answer["error"]["message"]
        assert (await api.get("/v1/collections"))[1] == {"collections": []}


async def test_a_json_body_has_a_limit(tmp_path: Path, dsn: str) -> None:
    """Whether its length is announced or not, and whether it is here at once or not."""
    body = b'{"query": "' + b"x" * 4096 + b'"}'

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    small = configured(limits__body_bytes=4096)
    headers = {"Content-Type": "application/json"}
    async with serving(small, tmp_path, dsn, ingest=False) as api:
        for data in (body, in_pieces()):
            async with api.client.post("/v1/query", data=data, headers=headers) as response:
                answer = await response.json()
            assert (response.status, answer["error"]["code"]) == (413, "too_large")
            assert "limits.body_bytes = 4096" in answer["error"]["message"]


async def test_a_multipart_body_has_a_limit(tmp_path: Path, dsn: str) -> None:
    """Files that are each small enough are still refused if they are too many bytes together."""
    small = configured(limits__body_bytes=4096)
    async with serving(small, tmp_path, dsn, ingest=False) as api:
        form = aiohttp.FormData()
        for number in range(3):
            form.add_field("file", b"x" * 2000, filename=f"{number}.txt")
        async with api.client.post("/v1/documents", data=form) as response:
            answer = await response.json()
    assert (response.status, answer["error"]["code"]) == (413, "too_large")
    assert "limits.body_bytes = 4096" in answer["error"]["message"]
