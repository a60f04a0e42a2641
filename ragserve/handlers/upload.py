"""An upload's documents: one JSON document, a list of them, or multipart files."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import msgspec
from aiohttp import BodyPartReader, web

from ragserve.config import LimitsConfig
from ragserve.errors import InvalidRequest, TooLarge
from ragserve.handlers.body import arriving, check_length, decode_json, read_json
from ragserve.handlers.services import SERVICES
from ragserve.schema import DEFAULT_COLLECTION, DocumentRequest, DocumentsRequest
from ragserve.store.jobs import NewDocument

ID_CHARACTERS = 1024
CHUNK_BYTES = 256 * 1024


class Upload(msgspec.Struct, frozen=True):
    """What was handed in."""

    collection: str
    documents: list[NewDocument]


class _Shape(msgspec.Struct):
    documents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


async def read_upload(request: web.Request) -> Upload:
    """Return the request's documents; raise an error that names the one at fault."""
    limits = request.app[SERVICES].config.limits
    if request.content_type == "multipart/form-data":
        upload = await _read_multipart(request, limits)
    else:
        upload = _from_json(bytes(await read_json(request, msgspec.Raw)))
    if not upload.documents:
        raise InvalidRequest("documents: the upload holds none", param="documents")
    if len(upload.documents) > limits.documents_per_request:
        raise TooLarge(
            f"documents: {len(upload.documents)} in one upload, "
            f"limits.documents_per_request = {limits.documents_per_request}",
            param="documents",
        )
    _check_each(upload.documents, limits)
    return upload


def _from_json(body: bytes) -> Upload:
    if decode_json(body, _Shape).documents is msgspec.UNSET:
        single = decode_json(body, DocumentRequest)
        return Upload(single.collection or DEFAULT_COLLECTION, [_new_document(single)])
    several = decode_json(body, DocumentsRequest)
    for number, document in enumerate(several.documents):
        if document.collection not in (None, several.collection):
            raise InvalidRequest(
                f"documents[{number}].collection: name the collection once, beside documents",
                param=f"documents[{number}].collection",
            )
    return Upload(several.collection, [_new_document(document) for document in several.documents])


def _new_document(document: DocumentRequest) -> NewDocument:
    document_id = document.id if document.id is not None else _generated_id()
    return NewDocument(
        id=document_id,
        name=document.title or document_id,
        content=document.text.encode(errors="replace"),
        content_type=document.content_type or "text/plain",
        title=document.title,
        url=document.url,
        metadata=msgspec.json.encode(document.metadata),
    )


def _generated_id() -> str:
    return f"doc-{secrets.token_hex(12)}"


def _check_each(documents: list[NewDocument], limits: LimitsConfig) -> None:
    seen: dict[str, int] = {}
    for number, document in enumerate(documents):
        where = f"documents[{number}]"
        if document.id in seen:
            raise InvalidRequest(
                f"{where}.id: {document.id!r} is the id of documents[{seen[document.id]}], too",
                param=f"{where}.id",
            )
        if len(document.id) > ID_CHARACTERS:
            raise InvalidRequest(
                f"{where}.id: {len(document.id)} characters, at most {ID_CHARACTERS}",
                param=f"{where}.id",
            )
        texts = (document.id, document.title, document.url, document.content_type)
        if any("\0" in text for text in texts if text):
            raise InvalidRequest(f"{where}: NUL characters cannot be stored", param=where)
        if b"\\u0000" in document.metadata:
            raise InvalidRequest(
                f"{where}.metadata: NUL characters cannot be stored", param=f"{where}.metadata"
            )
        if len(document.content) > limits.document_bytes:
            raise TooLarge(
                f"{where} ({document.name}): {len(document.content)} bytes, "
                f"limits.document_bytes = {limits.document_bytes}",
                param=where,
            )
        seen[document.id] = number


async def _read_multipart(request: web.Request, limits: LimitsConfig) -> Upload:
    """Read files and the fields ``collection``, ``metadata``, ``url``, ``title`` and ``id``.

    Fields apply to all files; ``id`` and ``title`` only make sense with a single one.
    """
    check_length(request)
    read_bytes = 0
    fields: dict[str, str] = {}
    files: list[tuple[str, str | None, bytes]] = []
    try:
        async with arriving(request):
            async for part in _parts(request):
                content = await _read_part(part, limits)
                read_bytes += len(content)
                if read_bytes > limits.body_bytes:
                    raise TooLarge(f"body: over limits.body_bytes = {limits.body_bytes}")
                if part.filename is not None:
                    files.append((part.filename, part.headers.get("Content-Type"), content))
                elif part.name in ("collection", "metadata", "url", "title", "id"):
                    fields[part.name] = content.decode(errors="replace")
                else:
                    raise InvalidRequest(
                        f"field {part.name!r}: not one of collection, metadata, url, title, id; "
                        "files need a filename",
                        param=part.name,
                    )
    except ValueError as error:
        raise InvalidRequest(f"multipart: {error}") from error
    if len(files) > 1 and {"id", "title"} & fields.keys():
        raise InvalidRequest(f"id and title describe one file, these are {len(files)}", param="id")
    metadata = fields.get("metadata", "{}").encode()
    decode_json(metadata, dict[str, object], "metadata")
    documents = [
        NewDocument(
            id=fields.get("id") or name[:ID_CHARACTERS],
            name=name,
            content=content,
            content_type=content_type,
            title=fields.get("title"),
            url=fields.get("url"),
            metadata=metadata,
        )
        for name, content_type, content in files
    ]
    return Upload(fields.get("collection") or DEFAULT_COLLECTION, documents)


async def _parts(request: web.Request) -> AsyncIterator[BodyPartReader]:
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise InvalidRequest("multipart: a part holds parts itself")
        yield part


async def _read_part(part: BodyPartReader, limits: LimitsConfig) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        content += chunk
        if len(content) > limits.document_bytes:
            raise TooLarge(
                f"{part.filename or part.name}: over limits.document_bytes = "
                f"{limits.document_bytes}",
                param=part.name,
            )
    return bytes(content)
