"""How one answer is made: retrieve, keep what is relevant, generate or extract."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from ragserve.config import AnswerConfig, SearchConfig
from ragserve.embed import Embedder
from ragserve.errors import DeadlineExceeded, Overloaded, Unavailable, UpstreamFailed
from ragserve.flow.context import Context
from ragserve.flow.flight import Flight
from ragserve.flow.pace import Pace
from ragserve.generate import (
    NO_ANSWER,
    Answer,
    LanguageModel,
    Turn,
    cite,
    extract_answer,
    standalone,
)
from ragserve.index import analyzer_of
from ragserve.metrics import ANSWERS, DEGRADED
from ragserve.pipeline.events import Event, Sources, words
from ragserve.pipeline.gates import Gates
from ragserve.pipeline.making import Made
from ragserve.pipeline.question import Asked
from ragserve.pipeline.reranking import Reranking
from ragserve.pipeline.vectors import Array, Vectors
from ragserve.retrieve import PATIENCE_S, Found, Indexes, Question, Reranker, relevant, retrieve
from ragserve.schema import QueryResponse, SearchResponse, SearchResult, Usage
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
        reranker: Reranker | None,
    ) -> None:
        self._search = search
        self._answer = answer
        self._searches = searches
        self._indexes = indexes
        self._embedder = embedder
        self._vectors = vectors
        self._model = model
        self._gates = gates
        self._pace = Pace()
        self._reranking = Reranking(reranker, gates.compute if model is None else gates.llm)

    async def search(
        self, asked: Asked, context: Context, _flight: Flight[Event, Any]
    ) -> Made[SearchResponse]:
        """Return passages, best first."""
        async with self._gates.compute.permit(context.tenant, context.deadline):
            _, found = await self._find(
                asked, asked.text, context, with_vector=asked.mode != "lexical"
            )
        degraded = list(found.degraded)
        best = await self._reranking.best(asked.text, found.results, asked.top_k, context, degraded)
        response = SearchResponse(best, asked.mode, degraded or msgspec.UNSET)
        return Made(response, not degraded, not best, found.version)

    async def _find(
        self, asked: Asked, text: str, context: Context, *, with_vector: bool
    ) -> tuple[Array | None, Found]:
        """Search for ``text``; return its vector, if there is one, and passages, best first.

        There are more of them than were asked for if they are to be reranked.
        """
        vector = None
        if with_vector:
            check_embedder(asked.collection, self._embedder.name, self._embedder.dimensions)
            with context.stage("embed"):
                vector = await self._vectors.of_question(text)
        wanted = self._reranking.candidates(asked.top_k)
        with context.stage("retrieve"):
            async with self._gates.database.permit(context.tenant, context.deadline):
                await self._pace.take()
                patience_s = min(PATIENCE_S, context.due_s(time.monotonic()) / 2)
                question = Question(text, vector, wanted, asked.mode, asked.filter, patience_s)
                found = await retrieve(
                    self._searches, self._indexes, self._search, asked.collection, question
                )
        return vector, found

    async def answer(
        self, asked: Asked, context: Context, flight: Flight[Event, Any]
    ) -> Made[QueryResponse]:
        """Return an answer; the flight publishes its sources and words as they come."""
        degraded: list[str] = []
        text, spent = await self._standalone(asked, context, degraded)
        compute = self._gates.compute
        answer: Answer | None = None
        async with compute.permit(context.tenant, context.deadline):
            vector, found = await self._find(asked, text, context, with_vector=True)
            degraded += found.degraded
            await self._pace.take()
            terms = analyzer_of(asked.collection.language).terms
            passages = relevant(found, text, self._answer.min_similarity, terms)
            reranks = len(passages) > 1 and self._reranking.reranks
            if (self._model is None and not reranks) or not passages:
                with context.stage("generate"):
                    answer = await self._extract(asked, text, vector, passages, flight)
        if answer is None:
            passages = await self._reranking.best(text, passages, asked.top_k, context, degraded)
        if answer is None and self._model is not None:
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
            usage=added(answer.usage, spent),
            cache="miss",
            degraded=degraded or msgspec.UNSET,
        )
        whole = answer.complete and not degraded
        return Made(response, whole, answer.text == NO_ANSWER, found.version)

    async def _standalone(
        self, asked: Asked, context: Context, degraded: list[str]
    ) -> tuple[str, Usage]:
        """Return what to search for, the question completed by its conversation, and the cost."""
        turns = asked.conversation.turns
        if not turns or self._answer.rewrite == "off":
            return asked.text, Usage()
        if self._answer.rewrite == "model" and self._model is not None:
            try:
                with context.stage("rewrite"):
                    return await self._rewrite(self._model, asked.text, turns, context)
            except (UpstreamFailed, DeadlineExceeded, Overloaded):
                context.remarks["rewrite"] = "failed"
                degraded.append("rewrite")
        return standalone(asked.text, turns), Usage()

    async def _rewrite(
        self, model: LanguageModel, question: str, turns: Sequence[Turn], context: Context
    ) -> tuple[str, Usage]:
        """Return the question as the model reads it, in time for an answer."""
        now = time.monotonic()
        llm = self._gates.llm
        left_s = context.due_s(now) - llm.typical_s
        deadline = context.deadline.within(min(self._answer.rewrite_timeout_s, left_s), now)
        async with llm.permit(context.tenant, deadline) as permit:
            permit.tells = False  # a few words say little of how busy the model is
            return await model.rewrite(question, turns, deadline, context.spend)

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

        spoken = False
        try:
            async with self._gates.llm.permit(context.tenant, context.deadline) as permit:
                start = time.monotonic()

                def begin(said: bytearray) -> None:
                    nonlocal spoken
                    spoken = True
                    # How long an answer is says nothing of how busy the model is.
                    permit.observed_s = time.monotonic() - start
                    # Which grows; whoever joins late is told what is in it then.
                    flight.remember(cast(bytes, said))

                return await self._model.answer(
                    prompt,
                    asked.conversation.options,
                    context.deadline,
                    flight.tell,
                    context.spend,
                    begin,
                )
        except UpstreamFailed:
            # Sources may be told twice, the last ones count; words cannot be taken back.
            if spoken and not flight.retract():
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
        flight.publish(words(answer.text))
        return answer


def _sources(passages: Sequence[SearchResult]) -> Sources:
    return Sources([cite(number, passage) for number, passage in enumerate(passages, 1)])


def added(one: Usage, other: Usage) -> Usage:
    """Return what two calls cost together."""
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        one.total_tokens + other.total_tokens,
    )


def _kind(answer: Answer) -> str:
    if answer.text == NO_ANSWER:
        return "none"
    return "extractive" if answer.model == "extractive" else "generated"
