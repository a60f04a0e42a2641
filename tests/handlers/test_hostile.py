"""Requests that nobody means well with: each gets a clear refusal, none a 500."""

from __future__ import annotations

import asyncio
from itertools import product

import aiohttp

from tests.conftest import Api

DEEP = b'{"query": "x", "filter": ' + b'{"a": ' * 20_000 + b"1" + b"}" * 20_000 + b"}"
BODIES = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"query": "\xff"}',
    b'{"query": "\\ud800"}',
    b'{"query": "x", "top_k": 1e400}',
    b'{"query": "x", "top_k": 99999999999999999999999}',
    b'{"query": "x", "filter": {"a": 1e999}}',
    b'{"query": "x", "filter": {"a\\u0000": 1}}',
    b'{"query": "x", "filter": {"a": "\\u0000"}}',
    b'{"query": "x", "collection": "\\u0000"}',
    b'{"query": "x", "collection": "../../etc"}',
    b'{"query": "x", "query": 5}',
    DEEP,
]


async def test_bodies_that_are_no_question(api: Api) -> None:
    """What is no question is refused in the envelope, with the field or the body named."""
    await api.ingest({"id": "a", "text": "lunch is at noon"})
    headers = {"Content-Type": "application/json"}
    for path, body in product(("/v1/search", "/v1/query"), BODIES):
        async with api.client.post(path, data=body, headers=headers) as response:
            assert 400 <= response.status < 500, (body[:100], await response.text())
            assert (await response.json())["error"]["message"]


DOCUMENTS: list[dict[str, object]] = [
    {"text": "x", "id": ""},
    {"text": "x", "id": "a\0b"},
    {"text": "x", "id": "x" * 5000},
    {"text": "x", "title": "a\0b"},
    {"text": "x", "url": "\0"},
    {"text": "x", "metadata": {"a": "\0"}},
    {"text": "x", "metadata": {"a\0": 1}},
    {"text": "x", "metadata": []},
    {"text": 5},
    {"text": "x", "content_type": "a\0"},
]


async def test_documents_that_cannot_be_kept(api: Api) -> None:
    """A document with an impossible field is refused, by field."""
    for document in DOCUMENTS:
        status, answer = await api.post("/v1/documents", document)
        assert 400 <= status < 500, (document, answer)
        assert answer["error"]["message"]


ADDRESSES = [
    ("GET", "/v1/documents/a%00b"),
    ("DELETE", "/v1/documents/a%00b"),
    ("GET", "/v1/documents/a?collection=%00"),
    ("GET", "/v1/documents?cursor=AAAA"),
    ("GET", "/v1/documents?cursor=%ff"),
    ("GET", "/v1/collections/%00"),
    ("DELETE", "/v1/collections/%00"),
    ("GET", "/v1/documents/%ff%fe"),
    ("POST", "/v1/documents?wait=nan"),
    ("POST", "/v1/documents?wait=-1"),
    ("POST", "/v1/documents?wait=1e999"),
    ("POST", "/v1/documents?wait="),
    ("POST", "/v1/collections"),
    ("PATCH", "/v1/query"),
]


async def test_addresses_that_lead_nowhere(api: Api) -> None:
    """Impossible ids, cursors and waits are refused or not found."""
    await api.ingest({"id": "a", "text": "lunch is at noon"})
    for method, path in ADDRESSES:
        body = {"text": "x"} if method == "POST" else None
        status, answer = await api.call(method, path, body)
        assert 400 <= status < 500, (method, path, answer)
        assert answer["error"]["message"]


FORMS = [
    ({"metadata": "{"}, "metadata: "),
    ({"metadata": "[]"}, "metadata: Expected `object`"),
    ({"metadata": '{"a": "\\u0000"}'}, "NUL"),
    ({"collection": "a/b"}, "collection"),
    ({"id": "a\0"}, "NUL"),
    ({"id": "x" * 5000}, "id"),
    ({"colour": "red"}, "field 'colour'"),
]


async def test_forms_that_make_no_sense(api: Api) -> None:
    """A field of a multipart body that cannot be used is named."""
    for fields, message in FORMS:
        form = aiohttp.FormData(fields)
        form.add_field("file", b"lunch is at noon", filename="a.txt")
        async with api.client.post("/v1/documents", data=form) as response:
            answer = await response.json()
            assert 400 <= response.status < 500, (fields, answer)
        assert message in answer["error"]["message"]


async def test_a_broken_chunked_body_is_a_bad_request(api: Api) -> None:
    """A body whose chunks are garbage is the client's fault, and said so."""
    server = api.client.server
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"que\r\nzz\r\n'
    )
    status = await asyncio.wait_for(reader.readline(), 10)
    assert status.split()[1] == b"400"
    writer.close()
