"""How one answer is made: retrieve, keep what is relevant, generate or extract."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import msgspec

from ragserve.config import AnswerConfig, SearchConfig
from ragserve.embed import Embedder
from ragserve.errors import Unavailable, UpstreamFailed
from ragserve.flow.context import Context
from ragserve.flow.flight import Publish
from ragserve.generate import NO_ANSWER, Answer, LanguageModel, extract_answer
from ragserve.index import analyzer_of
from ragserve.metrics import ANSWERS, DEGRADED
from ragserve.pipeline.events import Delta, Event, Sources
from ragserve.pipeline.question import Asked
from ragserve.pipeline.vectors import Array, Vectors
from ragserve.retrieve import Found, Indexes, Question, relevant, retrieve
from ragserve.schema import QueryResponse, SearchResult
from ragserve.store.collections import check_embedder
from ragserve.store.pool import Database


class Answering:
    """Finds passages, and makes answers of them."""

    def __init__(
        self,
        search: SearchConfig,
        answer: AnswerConfig,
        database: Database,
        indexes: Indexes,
        embedder: Embedder,
        vectors: Vectors,
        model: LanguageModel | None,
    ) -> None:
        self._search = search
        self._answer = answer
        self._database = database
        self._indexes = indexes
        self._embedder = embedder
        self._vectors = vectors
        self._model = model

    async def find(
        self, asked: Asked, context: Context, *, with_vector: bool
    ) -> tuple[Array | None, Found]:
        """Return the question's vector, if wanted and to be had, and the best passages."""
        vector = None
        if with_vector:
            check_embedder(asked.collection, self._embedder.name, self._embedder.dimensions)
            with context.stage("embed"):
                vector = await self._vectors.of_question(asked.text)
        question = Question(asked.text, vector, asked.top_k, asked.mode, asked.filter)
        with context.stage("retrieve"):
            found = await retrieve(
                self._database, self._indexes, self._search, asked.collection, question
            )
        return vector, found

    async def answer(
        self, asked: Asked, context: Context, publish: Publish[Event]
    ) -> QueryResponse:
        """Return an answer; ``publish`` hears its sources and words as they come."""
        vector, found = await self.find(asked, context, with_vector=True)
        degraded = list(found.degraded)
        terms = analyzer_of(asked.collection.language).terms
        passages = relevant(found, asked.text, self._answer.min_similarity, terms)
        with context.stage("generate"):
            answer = await self._make(asked, vector, passages, degraded, context)
        publish(Sources(answer.citations))
        publish(Delta(answer.text))
        ANSWERS.labels(_kind(answer)).inc()
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

    async def _make(
        self,
        asked: Asked,
        vector: Array | None,
        passages: Sequence[SearchResult],
        degraded: list[str],
        context: Context,
    ) -> Answer:
        if self._model is not None and passages:
            try:
                return await self._model.answer(asked.text, passages, context.deadline)
            except UpstreamFailed:
                degraded.append("llm")
        if vector is None:
            raise Unavailable("embedder: no answer, and none can be extracted without it")
        return await extract_answer(
            asked.text,
            vector,
            passages,
            self._vectors.of_texts,
            language=asked.collection.language,
            limit=self._answer.sentences,
            min_similarity=self._answer.min_similarity,
        )


def _kind(answer: Answer) -> str:
    if answer.text == NO_ANSWER:
        return "none"
    return "extractive" if answer.model == "extractive" else "generated"
