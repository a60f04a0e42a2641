"""The semantic tier, off unless configured: a paraphrase gets the answer of the question it is."""

from __future__ import annotations

import numpy as np

from ragserve.cache import Answers, Entry
from ragserve.cache.key import Kind
from ragserve.cache.neighbours import Neighbours
from ragserve.metrics import CACHE_LOOKUPS
from ragserve.pipeline.question import Asked
from ragserve.pipeline.vectors import Vectors

CAPACITY_BYTES = 16 * 1024**2


class Paraphrases:
    """Kept answers by the meaning of their questions; ``threshold`` is a cosine."""

    def __init__(
        self, kind: Kind, recipe: bytes, threshold: float, answers: Answers, vectors: Vectors
    ) -> None:
        self._kind = kind
        self._recipe = recipe
        self._threshold = threshold
        self._answers = answers
        self._vectors = vectors
        self._neighbours = Neighbours(CAPACITY_BYTES)

    async def find(self, asked: Asked, now: float) -> Entry | None:
        """Return the fresh answer of the most similar question, if one is similar enough."""
        vector = await self._vectors.of_question(asked.text)
        found = None
        if vector is not None:
            partition = asked.scope(self._kind, self._recipe).partition()
            for key in self._neighbours.find(partition, asked.text, vector, self._threshold):
                entry = self._answers.peek(key, now)
                if entry is not None and now < entry.fresh_until:
                    found = entry
                    break
        CACHE_LOOKUPS.labels("semantic", "miss" if found is None else "hit").inc()
        return found

    async def add(self, asked: Asked, key: bytes) -> None:
        """Remember a question whose answer is kept under ``key``."""
        vector = await self._vectors.of_question(asked.text)
        if vector is not None:
            partition = asked.scope(self._kind, self._recipe).partition()
            row = np.asarray(vector, np.float32)
            self._neighbours.add(partition, asked.text, row, key)
