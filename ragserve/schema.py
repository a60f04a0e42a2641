"""The API's requests and responses. ``/openapi.json`` is generated from these types."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ragserve.config import MOST_PER_MINUTE, Language

Scope = Literal["query", "ingest", "admin"]
"""What a key may be good for."""

Mode = Literal["hybrid", "dense", "lexical"]
DEFAULT_COLLECTION = "default"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request's body; a misspelt field is an error, not a default."""


class SearchRequest(Request, frozen=True, forbid_unknown_fields=True):
    """Find passages."""

    query: str
    collection: str = DEFAULT_COLLECTION
    top_k: Annotated[int, Meta(ge=1)] | None = None
    mode: Mode | None = None
    filter: dict[str, Any] | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None
    """Seconds that the client is willing to wait."""


class SearchResult(msgspec.Struct, frozen=True):
    """A passage. ``score`` is a cosine (dense), a BM25 score (lexical) or a blend (hybrid)."""

    document_id: str
    chunk_id: str
    title: str
    url: str | None
    score: float
    text: str
    metadata: msgspec.Raw
    position: int
    page: int | UnsetType = UNSET
    heading: str | UnsetType = UNSET


class SearchResponse(msgspec.Struct, frozen=True):
    """Passages, best first."""

    results: list[SearchResult]
    mode: Mode
    degraded: list[str] | UnsetType = UNSET


class QueryRequest(SearchRequest, frozen=True, forbid_unknown_fields=True):
    """Ask a question."""

    stream: bool = False


class Citation(msgspec.Struct, frozen=True):
    """A passage that the answer cites as ``[index]``."""

    index: int
    document_id: str
    chunk_id: str
    title: str
    score: float
    text: str
    url: str | UnsetType = UNSET
    page: int | UnsetType = UNSET
    heading: str | UnsetType = UNSET


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the language model counted them, estimated if it did not say; 0 without one."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class QueryResponse(msgspec.Struct, frozen=True):
    """An answer with its sources. ``cache`` says whether it was computed for this request."""

    id: str
    answer: str
    citations: list[Citation]
    model: str
    usage: Usage
    cache: Literal["hit", "miss"]
    degraded: list[str] | UnsetType = UNSET


class AnswerEnd(msgspec.Struct, frozen=True):
    """The last event of a streamed answer; ``cited`` are the indexes of the sources it cites."""

    id: str
    cited: list[int]
    model: str
    usage: Usage
    cache: Literal["hit", "miss"]
    degraded: list[str] | UnsetType = UNSET


class DocumentRequest(Request, frozen=True, forbid_unknown_fields=True):
    """A document to ingest; without an id one is generated."""

    text: str
    id: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None
    title: Annotated[str, Meta(max_length=1000)] | None = None
    url: Annotated[str, Meta(max_length=4000)] | None = None
    metadata: dict[str, Any] = {}
    content_type: str | None = None
    collection: str | None = None


class DocumentsRequest(Request, frozen=True, forbid_unknown_fields=True):
    """Several documents for one collection."""

    documents: list[DocumentRequest]
    collection: str = DEFAULT_COLLECTION


class Accepted(msgspec.Struct, frozen=True):
    """What became of one document of an upload; no job if nothing changed."""

    id: str
    state: Literal["queued", "running", "ready", "failed", "unchanged", "superseded"]
    job: int | None = None
    error: str | UnsetType = UNSET


class UploadResponse(msgspec.Struct, frozen=True):
    """The documents of an upload in their order; all of them are safe on disk."""

    collection: str
    documents: list[Accepted]


class DocumentResponse(msgspec.Struct, frozen=True):
    """A document's state: ``ready`` means its newest content is searchable."""

    id: str
    collection: str
    state: Literal["queued", "running", "ready", "failed"]
    title: str | None
    url: str | None
    metadata: msgspec.Raw
    chunks: int
    job: int | None
    attempts: int
    created_at: dt.datetime
    updated_at: dt.datetime
    error: str | UnsetType = UNSET


class DocumentList(msgspec.Struct, frozen=True):
    """A page of documents by id; ``cursor`` asks for the next one."""

    documents: list[DocumentResponse]
    cursor: str | None


class Deleted(msgspec.Struct, frozen=True):
    """Something is gone."""

    id: str
    deleted: bool = True


PerMinute = Annotated[int, Meta(ge=0, le=MOST_PER_MINUTE)]


class KeyLimits(
    Request, frozen=True, forbid_unknown_fields=True, omit_defaults=True, cache_hash=True
):
    """A key's own limits, each in place of that of its name in ``[rate]``; 0: any number."""

    query_per_minute: PerMinute | None = None
    search_per_minute: PerMinute | None = None
    ingest_per_minute: PerMinute | None = None
    admin_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None

    def of(self, name: str) -> int | None:
        """Return the limit of a class of routes, or of "tokens"; None: as others have it."""
        limit: int | None = getattr(self, f"{name}_per_minute")
        return limit


NO_LIMITS = KeyLimits()


class KeyRequest(Request, frozen=True, forbid_unknown_fields=True):
    """A key to make; ``collections`` null means all of the tenant's."""

    name: str
    scopes: list[Scope] = msgspec.field(default_factory=lambda: ["query"])
    collections: list[str] | None = None
    limits: KeyLimits = NO_LIMITS
    expires_at: Annotated[dt.datetime, msgspec.Meta(tz=True)] | None = None


class RotateRequest(Request, frozen=True, forbid_unknown_fields=True):
    """How long the key that is replaced stays valid."""

    grace_s: Annotated[float, msgspec.Meta(ge=0, le=30 * 86400)] = 3600.0


class KeyResponse(msgspec.Struct, frozen=True):
    """A key without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[Scope]
    collections: list[str] | None
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    limits: KeyLimits


class NewKey(msgspec.Struct, frozen=True):
    """A key and its token, which is shown this once."""

    key: KeyResponse
    token: str


class KeyList(msgspec.Struct, frozen=True):
    """All keys of a tenant, oldest first."""

    keys: list[KeyResponse]


class CacheCleared(msgspec.Struct, frozen=True):
    """Names of the collections whose kept answers are gone."""

    collections: list[str]


class CollectionRequest(Request, frozen=True, forbid_unknown_fields=True):
    """Create a collection with a language of its own."""

    name: str
    language: Language | None = None


class CollectionResponse(msgspec.Struct, frozen=True):
    """A collection; ``documents`` and ``chunks`` count what is searchable."""

    name: str
    documents: int
    chunks: int
    pending: int
    failed: int
    version: int
    embedder: str
    language: str


class CollectionList(msgspec.Struct, frozen=True):
    """All collections by name."""

    collections: list[CollectionResponse]


class Dependency(msgspec.Struct, frozen=True):
    """One dependency's state, just measured."""

    status: Literal["ok", "absent", "failing"]
    latency_ms: float | None = None
    detail: str | UnsetType = UNSET


class HostProcess(msgspec.Struct, frozen=True):
    """A worker, by its number, or the ``ingester``; ``core`` is null unless it is bound to one.

    ``version`` is its release: during an upgrade a host runs two.
    """

    worker: str
    state: Literal["starting", "ready", "draining", "unreachable"]
    pid: int
    core: int | None
    uptime_s: float
    version: str | None


class HealthResponse(msgspec.Struct, frozen=True):
    """``ok`` if everything works, ``degraded`` if questions are answered without something."""

    status: Literal["ok", "degraded", "failing"]
    version: str
    uptime_s: float
    dependencies: dict[str, Dependency]
    workers: list[HostProcess]


class ReadyResponse(msgspec.Struct, frozen=True):
    """Whether new requests are welcome."""

    status: Literal["ready", "starting", "draining"]


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong, in OpenAI's shape."""

    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class ErrorResponse(msgspec.Struct, frozen=True):
    """The envelope of every error."""

    error: ErrorBody
