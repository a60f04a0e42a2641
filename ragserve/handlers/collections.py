"""Collections: create, list, describe, delete."""

from __future__ import annotations

import time

from aiohttp import web

from ragserve.config import Language
from ragserve.errors import Conflict
from ragserve.flow.principal import Principal
from ragserve.handlers.audit import note
from ragserve.handlers.body import json_response, read_json
from ragserve.handlers.services import PRINCIPAL, SERVICES, Services
from ragserve.handlers.turn import turn
from ragserve.schema import CollectionList, CollectionRequest, CollectionResponse, Deleted
from ragserve.store.collections import (
    Collection,
    count_collection,
    delete_collection,
    ensure_collection,
    get_collection,
    list_collections,
)


async def open_collection(
    request: web.Request, name: str, language: Language | None = None
) -> Collection:
    """Return the collection, created on first use with this server's embedder."""
    services, principal = request.app[SERVICES], request[PRINCIPAL]
    principal.check_collection(name)
    return await ensure_collection(
        services.database,
        principal.tenant,
        name,
        embedder=services.embedder.name,
        dimensions=services.embedder.dimensions,
        language=language or services.config.search.language,
        on_create=lambda made: note("collection_created", request, collection=made.name),
    )


async def visible_collection(services: Services, principal: Principal, name: str) -> Collection:
    """Return a collection that exists for ``principal``; raise ``NotFound``."""
    principal.check_collection(name)
    return await get_collection(services.database, principal.tenant, name)


async def visible_collections(services: Services, principal: Principal) -> list[Collection]:
    """Return all collections that exist for ``principal``."""
    collections = await list_collections(services.database, principal.tenant)
    return [collection for collection in collections if principal.sees(collection.name)]


async def create(request: web.Request) -> web.Response:
    """Create a collection."""
    services = request.app[SERVICES]
    wanted = await read_json(request, CollectionRequest)
    async with turn(request):
        collection = await open_collection(request, wanted.name, wanted.language)
    if wanted.language not in (None, collection.language):
        raise Conflict(
            f"collection {collection.name!r} exists with language {collection.language}",
            param="language",
        )
    return json_response(await _describe(services, collection), status=201)


async def describe(request: web.Request) -> web.Response:
    """Describe a collection."""
    services = request.app[SERVICES]
    name = request.match_info["name"]
    collection = await visible_collection(services, request[PRINCIPAL], name)
    return json_response(await _describe(services, collection))


async def listing(request: web.Request) -> web.Response:
    """List all collections."""
    services = request.app[SERVICES]
    collections = await visible_collections(services, request[PRINCIPAL])
    return json_response(
        CollectionList([await _describe(services, collection) for collection in collections])
    )


async def delete(request: web.Request) -> web.Response:
    """Delete a collection with all its documents."""
    services = request.app[SERVICES]
    name = request.match_info["name"]
    collection = await visible_collection(services, request[PRINCIPAL], name)
    async with turn(request):
        await delete_collection(services.database, collection)
    services.catalog.doubt(collection)
    note("collection_deleted", request, collection=name)
    return json_response(Deleted(name))


async def _describe(services: Services, collection: Collection) -> CollectionResponse:
    indexed = services.indexes.version(collection, time.monotonic())
    counts = await count_collection(services.database, collection, indexed)
    return CollectionResponse(
        name=collection.name,
        documents=counts.documents,
        chunks=counts.chunks,
        pending=counts.pending,
        failed=counts.failed,
        version=collection.version,
        embedder=collection.embedder,
        language=collection.language,
    )
