"""What handlers work with; put together by ``worker.app``."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from ragserve.cache import Answers
from ragserve.config import Config
from ragserve.embed import Embedder
from ragserve.flow.bucket import Decision
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.gate import Gate
from ragserve.flow.in_flight import InFlight
from ragserve.flow.principal import Principal
from ragserve.flow.signal import Signal
from ragserve.flow.streams import Streams
from ragserve.generate import LanguageModel
from ragserve.handlers.vitals import Vitals
from ragserve.host.presence import Phase, Presence
from ragserve.pipeline import Pipeline
from ragserve.retrieve import Indexes, Reranker
from ragserve.store.catalog import Catalog
from ragserve.store.keyring import Keyring
from ragserve.store.pool import Database
from ragserve.store.redis import Redis


class Services(msgspec.Struct):
    """The parts of a running worker. ``phase`` is where in its life it is."""

    config: Config
    database: Database
    keyring: Keyring
    catalog: Catalog
    indexes: Indexes
    embedder: Embedder
    model: LanguageModel | None
    reranker: Reranker | None
    redis: Redis | None
    answers: Answers
    pipeline: Pipeline
    changes: Gate
    changed: Signal
    in_flight: InFlight
    streams: Streams
    started_at: float
    vitals: Vitals
    phase: Phase = "starting"

    @property
    def salt(self) -> bytes:
        """Return what, besides its content, decides how a document is stored."""
        chunking = self.config.chunking
        return ingest_salt(self.embedder.name, chunking.max_tokens, chunking.overlap_tokens)

    def context(self, principal: Principal, now: float, *wanted_s: float | None) -> Context:
        """Return the context of somebody's request that begins now.

        ``wanted_s`` is how long they are willing to wait; the shortest counts.
        """
        longest_s = self.config.server.request_timeout_s
        budget_s = min([longest_s, *(one for one in wanted_s if one is not None)])
        return Context(principal, deadline_after(budget_s, now))


SERVICES = web.AppKey("services", Services)
PRINCIPAL = web.RequestKey("principal", Principal)
"""Who asks; there is none on routes for everybody."""
DECISION = web.RequestKey("decision", Decision)
"""What is left in the token bucket that the request drew from."""
MAY_SPEND: web.RequestKey[Callable[[], None]] = web.RequestKey("may_spend", Callable)  # type: ignore[arg-type]
"""Raises ``TooManyRequests`` if the language model's tokens are used up."""
SPEND: web.RequestKey[Callable[[int], None]] = web.RequestKey("spend", Callable)  # type: ignore[arg-type]
"""Counts tokens of the language model that were taken for whoever asks."""
UNTIL = web.RequestKey("until", float)
"""When a client that has said so gives up waiting, in the event loop's time."""
REQUEST_ID = web.RequestKey("request_id", str)
PRESENCE = web.AppKey("presence", Presence)
"""This worker among the processes of its host."""


def ingest_salt(embedder: str, max_tokens: int, overlap_tokens: int) -> bytes:
    """Return a text that changes whenever unchanged documents must be processed again."""
    return f"1 {embedder} {max_tokens} {overlap_tokens}".encode()
