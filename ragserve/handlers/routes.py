"""All routes: what the router serves and what ``/openapi.json`` describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web

from ragserve import openai, schema
from ragserve.handlers import (
    ask,
    cache,
    chat,
    collections,
    documents,
    embeddings,
    health,
    keys,
    models,
)
from ragserve.schema import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parameter(NamedTuple):
    """A query parameter."""

    name: str
    kind: str
    text: str


class Route(NamedTuple):
    """A method on a path, its handler and the types of its bodies."""

    method: str
    path: str
    handler: Handler
    request: Any = None  # a type, or several of which the body is one
    response: Any = None
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    scope: Scope | None = "query"
    """What a key must be good for; None: the route is for everybody."""


_IN_COLLECTION = Parameter("collection", "string", "The collection, unless it is 'default'.")
_WAIT = Parameter("wait", "number", "Seconds to wait until the documents are searchable.")
_CURSOR = Parameter("cursor", "string", "The cursor of the page before.")

_QUESTIONS = (
    Route("POST", "/v1/query", ask.query, schema.QueryRequest, schema.QueryResponse),
    Route("POST", "/v1/search", ask.search, schema.SearchRequest, schema.SearchResponse),
)
_DOCUMENTS = (
    Route(
        "POST",
        "/v1/documents",
        documents.upload,
        (schema.DocumentRequest, schema.DocumentsRequest),
        schema.UploadResponse,
        202,
        (_WAIT,),
        scope="ingest",
    ),
    Route(
        "GET",
        "/v1/documents",
        documents.listing,
        None,
        schema.DocumentList,
        200,
        (_IN_COLLECTION, _CURSOR),
    ),
    Route(
        "GET",
        "/v1/documents/{id}",
        documents.describe,
        None,
        schema.DocumentResponse,
        200,
        (_IN_COLLECTION,),
    ),
    Route(
        "DELETE",
        "/v1/documents/{id}",
        documents.delete,
        None,
        schema.Deleted,
        200,
        (_IN_COLLECTION,),
        scope="ingest",
    ),
)
_COLLECTIONS = (
    Route(
        "POST",
        "/v1/collections",
        collections.create,
        schema.CollectionRequest,
        schema.CollectionResponse,
        201,
        scope="ingest",
    ),
    Route("GET", "/v1/collections", collections.listing, None, schema.CollectionList),
    Route("GET", "/v1/collections/{name}", collections.describe, None, schema.CollectionResponse),
    Route(
        "DELETE", "/v1/collections/{name}", collections.delete, None, schema.Deleted, scope="ingest"
    ),
)
_OPERATION = (
    Route("GET", "/health", health.health, None, schema.HealthResponse, scope=None),
    Route("GET", "/ready", health.ready, None, schema.ReadyResponse, scope=None),
)

_CACHE = (
    Route(
        "DELETE",
        "/v1/cache",
        cache.clear,
        None,
        schema.CacheCleared,
        200,
        (Parameter("collection", "string", "The collection; without it, all."),),
        scope="admin",
    ),
)

_KEYS = (
    Route("POST", "/v1/keys", keys.create, schema.KeyRequest, schema.NewKey, 201, scope="admin"),
    Route("GET", "/v1/keys", keys.listing, None, schema.KeyList, scope="admin"),
    Route(
        "POST",
        "/v1/keys/{id}/rotate",
        keys.rotate,
        schema.RotateRequest,
        schema.NewKey,
        201,
        scope="admin",
    ),
    Route(
        "PUT",
        "/v1/keys/{id}/limits",
        keys.limit,
        schema.KeyLimits,
        schema.KeyResponse,
        scope="admin",
    ),
    Route("DELETE", "/v1/keys/{id}", keys.revoke, None, schema.Deleted, scope="admin"),
)

_OPENAI = (
    Route("POST", "/v1/chat/completions", chat.chat, openai.ChatRequest, openai.ChatCompletion),
    Route("GET", "/v1/models", models.listing, None, openai.ModelList),
    Route("GET", "/v1/models/{name}", models.describe, None, openai.Model),
    Route(
        "POST",
        "/v1/embeddings",
        embeddings.embeddings,
        openai.EmbeddingsRequest,
        openai.EmbeddingsResponse,
    ),
)

ROUTES = (*_QUESTIONS, *_OPENAI, *_DOCUMENTS, *_COLLECTIONS, *_CACHE, *_KEYS, *_OPERATION)
