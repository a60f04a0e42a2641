"""A question's way: embed → retrieve → generate, each stage timed and within the deadline."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ragserve.cache import LocalCache
from ragserve.config import Config
from ragserve.embed import Embedder
from ragserve.errors import InvalidRequest, Unavailable, UpstreamFailed
from ragserve.flow.context import Context
from ragserve.generate import NO_ANSWER, Answer, LanguageModel, extract_answer
from ragserve.index import analyzer_of
from ragserve.metrics import ANSWERS, DEGRADED, EMBEDDING_CACHE
from ragserve.retrieve import Found, Indexes, Question, parse_filter, relevant, retrieve
from ragserve.schema import (
    QueryRequest,
    QueryResponse,
    SearchRequest,
    SearchResponse,
    SearchResult,
)
from ragserve.store.catalog import Catalog
from ragserve.store.collections import Collection, check_embedder
from ragserve.store.pool import Database

Vectors = npt.NDArray[np.float32]

ENTRY_OVERHEAD_BYTES = 200
"""A cache entry's key and bookkeeping, roughly."""


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
        self._database = database
        self._catalog = catalog
        self._indexes = indexes
        self._embedder = embedder
        self._model = model
        self._vectors: LocalCache[str, Vectors] = LocalCache(config.embedding.cache_bytes)

    async def search(self, request: SearchRequest, context: Context) -> SearchResponse:
        """Return passages, best first."""
        mode = request.mode or self._config.search.mode
        top_k = request.top_k or self._config.search.top_k
        _, _, found = await self._find(request, context, top_k, with_vector=mode != "lexical")
        return SearchResponse(
            list(found.results), mode, list(found.degraded) if found.degraded else msgspec.UNSET
        )

    async def query(self, request: QueryRequest, context: Context) -> QueryResponse:
        """Answer a question from the best passages, with citations."""
        top_k = request.top_k or self._config.answer.top_k
        collection, vector, found = await self._find(request, context, top_k, with_vector=True)
        degraded = list(found.degraded)
        passages = self._relevant(found, request.query, collection)
        with context.stage("generate"):
            answer = await self._answer(
                request.query, vector, passages, collection, degraded, context
            )
        ANSWERS.labels("none" if answer.text == NO_ANSWER else _kind(answer)).inc()
        for dependency in degraded:
            DEGRADED.labels(dependency).inc()
        return QueryResponse(
            id=f"ans-{secrets.token_hex(12)}",
            answer=answer.text,
            citations=answer.citations,
            model=answer.model,
            usage=answer.usage,
            cache="miss",
            degraded=degraded or msgspec.UNSET,
        )

    async def _find(
        self, request: SearchRequest, context: Context, top_k: int, *, with_vector: bool
    ) -> tuple[Collection, Vectors | None, Found]:
        self._check(request, top_k)
        parsed = parse_filter(request.filter)
        collection = await self._collection(request.collection, context)
        vector = None
        if with_vector:
            check_embedder(collection, self._embedder.name, self._embedder.dimensions)
            with context.stage("embed"):
                vector = await self._vector(request.query)
        question = Question(
            text=request.query,
            vector=vector,
            top_k=top_k,
            mode=request.mode or self._config.search.mode,
            filter=parsed,
        )
        with context.stage("retrieve"):
            found = await retrieve(
                self._database, self._indexes, self._config.search, collection, question
            )
        return collection, vector, found

    def _check(self, request: SearchRequest, top_k: int) -> None:
        limits = self._config.limits
        if not request.query.strip():
            raise InvalidRequest("query is empty", param="query")
        if len(request.query) > limits.query_characters:
            raise InvalidRequest(
                f"query has {len(request.query)} characters, "
                f"limits.query_characters = {limits.query_characters}",
                param="query",
            )
        if top_k > limits.top_k:
            raise InvalidRequest(
                f"top_k = {top_k} is over limits.top_k = {limits.top_k}", param="top_k"
            )

    async def _collection(self, name: str, context: Context) -> Collection:
        return await self._catalog.get(context.tenant, name)

    async def _vector(self, query: str) -> Vectors | None:
        """Return the question's unit vector, from memory if it was asked before.

        None if a remote embedder fails: words can still be searched.
        """
        text = " ".join(unicodedata.normalize("NFKC", query).split())
        try:
            vectors = await self._embed([text])
        except UpstreamFailed:
            return None
        vector: Vectors = vectors[0]
        return vector

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (texts, dimensions), from memory as far as possible."""
        now = asyncio.get_running_loop().time()
        known = {text: self._vectors.get(text, now) for text in texts}
        missing = [text for text, vector in known.items() if vector is None]
        EMBEDDING_CACHE.labels("miss").inc(len(missing))
        EMBEDDING_CACHE.labels("hit").inc(len(known) - len(missing))
        if missing:
            for text, vector in zip(missing, await self._embedder.embed(missing), strict=True):
                known[text] = vector
                size = vector.nbytes + len(text) + ENTRY_OVERHEAD_BYTES
                # A row of its own: a view would keep the whole batch in memory.
                self._vectors.put(text, vector.copy(), size)
        return np.stack([vector for text in texts if (vector := known[text]) is not None])

    def _relevant(self, found: Found, question: str, collection: Collection) -> list[SearchResult]:
        analyzer = analyzer_of(collection.language)
        floor = self._config.answer.min_similarity
        return relevant(found, question, floor, analyzer.terms)

    async def _answer(
        self,
        question: str,
        vector: Vectors | None,
        passages: Sequence[SearchResult],
        collection: Collection,
        degraded: list[str],
        context: Context,
    ) -> Answer:
        if self._model is not None and passages:
            try:
                return await self._model.answer(question, passages, context.deadline)
            except UpstreamFailed:
                degraded.append("llm")
        if vector is None:
            raise Unavailable("embedder: no answer, and none can be extracted without it")
        return await extract_answer(
            question,
            vector,
            passages,
            self._embed,
            language=collection.language,
            limit=self._config.answer.sentences,
            min_similarity=self._config.answer.min_similarity,
        )


def _kind(answer: Answer) -> str:
    return "extractive" if answer.model == "extractive" else "generated"
