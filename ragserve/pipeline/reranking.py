"""The stage between search and answer: the best candidates anew in the order of a reranker.

It makes answers better and is never the reason for none: who cannot be waited for is left out,
and the passages stay as the search has ordered them. Such an answer is marked as degraded, so it
is not kept for those who ask later.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ragserve.errors import Overloaded, UpstreamFailed
from ragserve.flow.context import Context
from ragserve.flow.gate import Gate
from ragserve.retrieve import Reranker
from ragserve.schema import SearchResult

STAGE = "rerank"
DEPENDENCY = "reranker"


class Reranking:
    """``reranker``, if there is one, before ``then``: the stage that still needs time after it."""

    def __init__(self, reranker: Reranker | None, then: Gate) -> None:
        self._reranker = reranker
        self._then = then

    @property
    def reranks(self) -> bool:
        """Return whether there is a reranker."""
        return self._reranker is not None

    def candidates(self, top_k: int) -> int:
        """Return how many passages to search for if ``top_k`` are wanted."""
        return top_k if self._reranker is None else max(top_k, self._reranker.candidates)

    async def best(
        self,
        question: str,
        passages: Sequence[SearchResult],
        top_k: int,
        context: Context,
        degraded: list[str],
    ) -> list[SearchResult]:
        """Return the best ``top_k`` of the passages, and note in ``degraded`` if they may not be.

        Skipped if what remains then would not do for an answer: of the time of all who wait for
        it, and of the one who asked first.
        """
        if self._reranker is None or len(passages) < 2:
            return list(passages[:top_k])
        left_s = context.due_s(time.monotonic()) - self._then.typical_s
        if left_s <= self._reranker.typical_s:
            context.remarks[STAGE] = "skipped"
            degraded.append(DEPENDENCY)
            return list(passages[:top_k])
        try:
            with context.stage(STAGE):
                return await self._reranker.best(question, passages, top_k, left_s)
        except (UpstreamFailed, Overloaded):
            context.remarks[STAGE] = "failed"
            degraded.append(DEPENDENCY)
            return list(passages[:top_k])

    def __repr__(self) -> str:
        return f"<Reranking by {self._reranker!r}>"
