"""Documents: hand in, look up, list, delete."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Final

import msgspec
from aiohttp import web

from ragserve.errors import InvalidRequest, NotFound
from ragserve.handlers.audit import note
from ragserve.handlers.body import json_response
from ragserve.handlers.collections import open_collection, visible_collection
from ragserve.handlers.services import PRINCIPAL, SERVICES, UNTIL
from ragserve.handlers.turn import check_turn, turn
from ragserve.handlers.upload import read_upload
from ragserve.handlers.waiting import wait_searchable
from ragserve.schema import (
    DEFAULT_COLLECTION,
    Accepted,
    Deleted,
    DocumentList,
    DocumentResponse,
    UploadResponse,
)
from ragserve.store.collections import Collection
from ragserve.store.documents import DocumentRow, delete_document, find_document, list_documents
from ragserve.store.jobs import enqueue

PAGE: Final = 100
TELLING_S: Final = 0.1
"""It takes to say what has become of documents."""


async def upload(request: web.Request) -> web.Response:
    """Take documents; they are safe once this answers, and searchable soon after."""
    services = request.app[SERVICES]
    wait_s = _seconds(request, services.config.limits.wait_s)
    check_turn(request)
    handed_in = await read_upload(request)
    async with turn(request):
        collection = await open_collection(request, handed_in.collection)
        enqueued = await enqueue(
            services.database, collection, handed_in.documents, salt=services.salt
        )
    accepted = [
        Accepted(item.id, "unchanged" if item.job is None else "queued", item.job)
        for item in enqueued
    ]
    if UNTIL in request:  # what is safe is told while somebody is there to hear it
        wait_s = min(wait_s, request[UNTIL] - asyncio.get_running_loop().time() - TELLING_S)
    if wait_s > 0:
        accepted = await wait_searchable(services, collection, accepted, wait_s)
    done = all(item.state not in ("queued", "running") for item in accepted)
    return json_response(
        UploadResponse(collection.name, accepted), status=200 if wait_s > 0 and done else 202
    )


async def describe(request: web.Request) -> web.Response:
    """Describe a document and its latest job."""
    services = request.app[SERVICES]
    collection = await _collection(request)
    document_id = request.match_info["id"]
    row = await find_document(services.database, collection, document_id)
    if row is None:
        raise NotFound(f"document {document_id!r} is not in collection {collection.name!r}")
    return json_response(_response(collection, row))


async def listing(request: web.Request) -> web.Response:
    """List documents by id, a page at a time."""
    collection = await _collection(request)
    after = _decode_cursor(request.query.get("cursor", ""))
    rows = await list_documents(
        request.app[SERVICES].database, collection, after=after, limit=PAGE + 1
    )
    page = rows[:PAGE]
    cursor = _encode_cursor(page[-1].id) if len(rows) > PAGE else None
    return json_response(DocumentList([_response(collection, row) for row in page], cursor))


async def delete(request: web.Request) -> web.Response:
    """Delete a document and whatever is on its way to replace it."""
    collection = await _collection(request)
    document_id = request.match_info["id"]
    services = request.app[SERVICES]
    async with turn(request):
        deleted = await delete_document(services.database, collection, document_id)
    if not deleted:
        raise NotFound(f"document {document_id!r} is not in collection {collection.name!r}")
    services.catalog.doubt(collection)
    note("document_deleted", request, collection=collection.name, document=document_id)
    return json_response(Deleted(document_id))


async def _collection(request: web.Request) -> Collection:
    name = request.query.get("collection", DEFAULT_COLLECTION)
    return await visible_collection(request.app[SERVICES], request[PRINCIPAL], name)


def _response(collection: Collection, row: DocumentRow) -> DocumentResponse:
    return DocumentResponse(
        id=row.id,
        collection=collection.name,
        state=row.state,
        title=row.title,
        url=row.url,
        metadata=msgspec.Raw(row.metadata.encode()),
        chunks=row.chunks,
        job=row.job_id,
        attempts=row.attempts,
        created_at=row.created_at,
        updated_at=row.updated_at,
        error=row.error if row.error is not None else msgspec.UNSET,
    )


def _seconds(request: web.Request, limit_s: float) -> float:
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= limit_s:
        raise InvalidRequest(
            f"wait: {text!r} is no number of seconds from 0 to limits.wait_s = {limit_s}",
            param="wait",
        )
    return seconds


def _encode_cursor(document_id: str) -> str:
    return base64.urlsafe_b64encode(document_id.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> str:
    try:
        document_id = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        document_id = "\0"
    if "\0" in document_id:  # no document has such an id
        raise InvalidRequest(f"cursor: {cursor!r} is not one of ours", param="cursor")
    return document_id
