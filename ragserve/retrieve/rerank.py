"""A reranker elsewhere: a model that reads the question together with each passage.

Two shapes are spoken: Cohere's, which Jina, vLLM, llama.cpp and others share, and that of Hugging
Face's text-embeddings-inference.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import msgspec

from ragserve.config import RerankConfig
from ragserve.errors import UpstreamFailed
from ragserve.flow.breaker import Alone, Trials
from ragserve.flow.recent import Recent
from ragserve.schema import SearchResult
from ragserve.tracing import model_span
from ragserve.upstream import Member, Server, Upstream

PATH = "/rerank"
ATTEMPTS = 2
"""More would take longer than the better order is worth."""


class _Scored(msgspec.Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _Results(msgspec.Struct):
    results: list[_Scored]


class Reranker:
    """Puts passages into the order of their relevance, as its model sees it."""

    def __init__(
        self, config: RerankConfig, trials: Callable[[str], Trials] = lambda _: Alone()
    ) -> None:
        self.candidates = config.candidates
        self.timeout_s = config.timeout_s
        self._config = config
        server = Server(
            "reranker",
            config.base_url,
            config.api_key,
            connections=config.connections,
            connect_timeout_s=config.timeout_s,
            timeout_s=config.timeout_s,
            ca_file=config.ca_file,
        )
        member = Member(server, trials=trials(f"reranker {config.base_url}"))
        self._upstream = Upstream([member], attempts=ATTEMPTS)
        self._breaker = member.breaker
        self._seconds = Recent()

    @property
    def typical_s(self) -> float:
        """Return how long it usually takes; 0 while that is not known."""
        return self._seconds.percentile(50) or 0.0

    async def best(
        self, question: str, passages: Sequence[SearchResult], limit: int, timeout_s: float
    ) -> list[SearchResult]:
        """Return the ``limit`` most relevant passages, best first, with the scores it gave them.

        Raises ``UpstreamFailed`` or ``Overloaded``.
        """
        limit = min(limit, len(passages))
        start = time.monotonic()
        try:
            with model_span("rerank", self._config.model or self._config.api):
                async with asyncio.timeout(min(timeout_s, self.timeout_s)):
                    request = self._request(question, passages, limit)
                    reply = await self._upstream.post(PATH, request)
        except TimeoutError as error:
            waited_s = min(timeout_s, self.timeout_s)
            raise UpstreamFailed(f"reranker: no order within {waited_s:.3g} s") from error
        ranked = self._ranked(reply, len(passages), limit)
        self._seconds.add(time.monotonic() - start)
        return [
            msgspec.structs.replace(passages[index], score=score) for index, score in ranked[:limit]
        ]

    async def check(self) -> None:
        """Raise ``UpstreamFailed`` unless it can tell two passages apart."""
        request = self._request_of("Where is it?", ["Here.", "Tomorrow."], 2)
        self._ranked(await self._upstream.post(PATH, request), 2, 2)

    def check_breaker(self) -> None:
        """Raise ``UpstreamFailed`` while it is left alone; asks nobody, for calls may cost."""
        if self._breaker.state != "closed":
            raise UpstreamFailed(f"reranker {self._config.base_url}: left alone after failures")

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.close()

    def _request(
        self, question: str, passages: Sequence[SearchResult], limit: int
    ) -> dict[str, object]:
        return self._request_of(question, [_as_read(passage) for passage in passages], limit)

    def _request_of(self, question: str, texts: list[str], limit: int) -> dict[str, object]:
        if self._config.api == "tei":
            return {"query": question, "texts": texts, "truncate": True}
        request: dict[str, object] = {"query": question, "documents": texts, "top_n": limit}
        return {"model": self._config.model, **request} if self._config.model else request

    def _ranked(self, reply: bytes, passages: int, limit: int) -> list[tuple[int, float]]:
        """Return indexes and scores, best first; raise unless they make sense."""
        try:
            if self._config.api == "tei":
                scored = msgspec.json.decode(reply, type=list[_Scored])
            else:
                scored = msgspec.json.decode(reply, type=_Results).results
        except ValueError as error:  # not JSON, not this shape, not UTF-8
            raise UpstreamFailed(f"reranker: unusable answer: {error}") from error
        scores: dict[int, float] = {}
        for one in scored:
            score = one.relevance_score if one.relevance_score is not None else one.score
            if not 0 <= one.index < passages or score is None or not math.isfinite(score):
                raise UpstreamFailed(
                    f"reranker: unusable answer: index {one.index} of {passages}, score {score}"
                )
            scores[one.index] = score
        if len(scores) < limit:
            raise UpstreamFailed(
                f"reranker: unusable answer: {len(scores)} of {limit} passages ranked"
            )
        return sorted(scores.items(), key=lambda item: -item[1])

    def __repr__(self) -> str:
        return f"<Reranker {self._upstream!r}>"


def _as_read(passage: SearchResult) -> str:
    """Return a passage as a reader sees it: below its title and heading."""
    place = [passage.title]
    if passage.heading:
        place.append(str(passage.heading))
    return f"{' · '.join(place)}\n{passage.text}"
