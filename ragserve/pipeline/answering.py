"""How one answer is made: retrieve, keep what is relevant, generate or extract."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from ragserve.config import AnswerConfig, SearchConfig
from ragserve.embed import Embedder
from ragserve.errors import Unavailable, UpstreamFailed
from ragserve.flow.context import Context
from ragserve.flow.flight import Flight
from ragserve.generate import (
    NO_ANSWER,
    Answer,
    LanguageModel,
    cite,
    extract_answer,
    standalone,
)
from ragserve.index import analyzer_of
from ragserve.metrics import ANSWERS, DEGRADED
from ragserve.pipeline.events import Delta, Event, Sources, delta
from ragserve.pipeline.gates import Gates
from ragserve.pipeline.making import Made
from ragserve.pipeline.question import Asked
from ragserve.pipeline.vectors import Array, Vectors
from ragserve.retrieve import Found, Indexes, Question, relevant, retrieve
from ragserve.schema import QueryResponse, SearchResponse, SearchResult
from ragserve.store.collections import check_embedder
from ragserve.store.replica import Searches


class Answering:
    """Finds passages, and makes answers of them."""

    def __init__(
        self,
        search: SearchConfig,
        answer: AnswerConfig,
        searches: Searches,
        indexes: Indexes,
        embedder: Embedder,
        vectors: Vectors,
        model: LanguageModel | None,
        gates: Gates,
    ) -> None:
        self._search = search
        self._answer = answer
        self._searches = searches
        self._indexes = indexes
        self._embedder = embedder
        self._vectors = vectors
        self._model = model
        self._gates = gates

    async def search(
        self, asked: Asked, context: Context, _flight: Flight[Event, Any]
    ) -> Made[SearchResponse]:
        """Return passages, best first."""
        async with self._gates.compute.permit(context.tenant, context.deadline):
            _, found = await self._find(
                asked, asked.text, context, with_vector=asked.mode != "lexical"
            )
        response = SearchResponse(
            list(found.results), asked.mode, list(found.degraded) or msgspec.UNSET
        )
        return Made(response, not found.degraded, not found.results, found.version)

    async def _find(
        self, asked: Asked, text: str, context: Context, *, with_vector: bool
    ) -> tuple[Array | None, Found]:
        """Search for ``text``; return its vector, if there is one, and the best passages."""
        vector = None
        if with_vector:
            check_embedder(asked.collection, self._embedder.name, self._embedder.dimensions)
            with context.stage("embed"):
                vector = await self._vectors.of_question(text)
        question = Question(text, vector, asked.top_k, asked.mode, asked.filter)
        with context.stage("retrieve"):
            async with self._gates.database.permit(context.tenant, context.deadline):
                found = await retrieve(
                    self._searches, self._indexes, self._search, asked.collection, question
                )
        return vector, found

    async def answer(
        self, asked: Asked, context: Context, flight: Flight[Event, Any]
    ) -> Made[QueryResponse]:
        """Return an answer; the flight publishes its sources and words as they come."""
        text = await self._standalone(asked, context)
        compute = self._gates.compute
        answer: Answer | None = None
        async with compute.permit(context.tenant, context.deadline):
            vector, found = await self._find(asked, text, context, with_vector=True)
            degraded = list(found.degraded)
            terms = analyzer_of(asked.collection.language).terms
            passages = relevant(found, text, self._answer.min_similarity, terms)
            if self._model is None or not passages:
                with context.stage("generate"):
                    answer = await self._extract(asked, text, vector, passages, flight)
        if answer is None:
            with context.stage("generate"):
                answer = await self._generate(asked, passages, degraded, context, flight)
        if answer is None:
            async with compute.permit(context.tenant, context.deadline):
                with context.stage("generate"):
                    answer = await self._extract(asked, text, vector, passages, flight)
        ANSWERS.labels(_kind(answer)).inc()
        for dependency in degraded:
            DEGRADED.labels(dependency).inc()
        response = QueryResponse(
            id=f"ans-{secrets.token_hex(12)}",
            answer=answer.text,
            citations=answer.citations,
            model=answer.model,
            usage=answer.usage,
            cache="miss",
            degraded=degraded or msgspec.UNSET,
        )
        whole = answer.complete and not degraded
        return Made(response, whole, answer.text == NO_ANSWER, found.version)

    async def _standalone(self, asked: Asked, context: Context) -> str:
        """Return what to search for: the question, completed by the conversation before it."""
        turns = asked.conversation.turns
        if not turns or self._answer.rewrite == "off":
            return asked.text
        if self._answer.rewrite == "model" and self._model is not None:
            with context.stage("rewrite"), contextlib.suppress(UpstreamFailed):
                return await self._model.rewrite(asked.text, turns, context.deadline)
        return standalone(asked.text, turns)

    async def _generate(
        self,
        asked: Asked,
        passages: Sequence[SearchResult],
        degraded: list[str],
        context: Context,
        flight: Flight[Event, Any],
    ) -> Answer | None:
        """Return the model's answer; None if it failed unheard."""
        if self._model is None:
            return None
        prompt = self._model.prompt(asked.text, passages, asked.conversation)
        flight.publish(_sources(prompt.passages))

        start = 0.0
        first_s: float | None = None

        def say(text: str) -> None:
            nonlocal first_s
            if first_s is None:
                first_s = time.monotonic() - start
            flight.publish(delta(text))

        try:
            async with self._gates.llm.permit(context.tenant, context.deadline) as permit:
                start = time.monotonic()
                answer = await self._model.answer(
                    prompt, asked.conversation.options, context.deadline, say
                )
                # How long an answer is says nothing of how busy the model is.
                permit.observed_s = first_s
                return answer
        except UpstreamFailed:
            # Sources may be told twice, the last ones count; words cannot be taken back.
            if any(isinstance(event, Delta) for event in flight.events) and not flight.retract():
                raise
            degraded.append("llm")
            return None

    async def _extract(
        self,
        asked: Asked,
        text: str,
        vector: Array | None,
        passages: Sequence[SearchResult],
        flight: Flight[Event, Any],
    ) -> Answer:
        if vector is None:
            raise Unavailable("embedder: no answer, and none can be extracted without it")
        answer = await extract_answer(
            text,
            vector,
            passages,
            self._vectors.of_texts,
            language=asked.collection.language,
            limit=self._answer.sentences,
            min_similarity=self._answer.min_similarity,
        )
        flight.publish(_sources(passages))
        flight.publish(delta(answer.text))
        return answer


def _sources(passages: Sequence[SearchResult]) -> Sources:
    return Sources([cite(number, passage) for number, passage in enumerate(passages, 1)])


def _kind(answer: Answer) -> str:
    if answer.text == NO_ANSWER:
        return "none"
    return "extractive" if answer.model == "extractive" else "generated"
