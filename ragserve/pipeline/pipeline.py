"""The entrance: questions in, answers out; what is asked twice at once is computed once."""

from __future__ import annotations

import asyncio
import time

import msgspec

from ragserve.config import Config
from ragserve.embed import Embedder
from ragserve.errors import DeadlineExceeded
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.flight import Flight, Flights, Publish
from ragserve.generate import NO_CONVERSATION, Conversation, LanguageModel
from ragserve.metrics import FLIGHTS
from ragserve.pipeline.answering import Answering
from ragserve.pipeline.events import Event
from ragserve.pipeline.question import Asked, check_question, recipe
from ragserve.pipeline.vectors import Vectors
from ragserve.retrieve import Indexes
from ragserve.schema import QueryResponse, SearchRequest, SearchResponse
from ragserve.store.catalog import Catalog
from ragserve.store.pool import Database


class Pipeline:
    """Answers searches and questions from the parts it is given."""

    def __init__(
        self,
        config: Config,
        database: Database,
        catalog: Catalog,
        indexes: Indexes,
        embedder: Embedder,
        model: LanguageModel | None,
    ) -> None:
        self._config = config
        self._recipe = recipe(config, embedder.name)
        self._catalog = catalog
        vectors = Vectors(embedder, config.embedding.cache_bytes)
        self._answering = Answering(
            config.search, config.answer, database, indexes, embedder, vectors, model
        )
        self._flights: Flights[bytes, Event, QueryResponse] = Flights()

    async def search(self, request: SearchRequest, context: Context) -> SearchResponse:
        """Return passages, best first."""
        asked = await self._asked(request, context, self._config.search.top_k)
        _, found = await self._answering.find(
            asked, asked.text, context, with_vector=asked.mode != "lexical"
        )
        degraded = list(found.degraded) or msgspec.UNSET
        return SearchResponse(list(found.results), asked.mode, degraded)

    async def query(
        self,
        request: SearchRequest,
        context: Context,
        hear: Publish[Event] | None = None,
        conversation: Conversation = NO_CONVERSATION,
    ) -> QueryResponse:
        """Answer a question from the best passages, with citations.

        ``hear`` is called with each event of the answer as it comes about.
        """
        asked = await self._asked(request, context, self._config.answer.top_k, conversation)

        async def compute(flight: Flight[Event, QueryResponse]) -> QueryResponse:
            # Of its own: whoever started the flight may leave it, or have less time than others.
            flying = Context(context.tenant, deadline_after(self._timeout_s, time.monotonic()))
            try:
                return await self._answering.answer(asked, flying, flight)
            finally:
                context.timings.update(flying.timings)

        key = asked.key("query", self._recipe, fold_case=self._config.cache.fold_case)
        FLIGHTS.labels("joined" if key in self._flights else "started").inc()
        with self._flights.join(key, compute, hear) as flight:
            return await _landing(flight, context)

    async def _asked(
        self,
        request: SearchRequest,
        context: Context,
        top_k: int,
        conversation: Conversation = NO_CONVERSATION,
    ) -> Asked:
        top_k, parsed = check_question(request, self._config.limits, top_k)
        collection = await self._catalog.get(context.tenant, request.collection)
        mode = request.mode or self._config.search.mode
        return Asked(request, collection, top_k, mode, parsed, conversation)

    @property
    def _timeout_s(self) -> float:
        return self._config.server.request_timeout_s


async def _landing(flight: Flight[Event, QueryResponse], context: Context) -> QueryResponse:
    try:
        async with asyncio.timeout_at(context.deadline.at):
            return await flight.result()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"answer: not ready within the request's {context.deadline.budget_s} s"
        ) from error
