"""Vectors of questions and sentences, computed once and then remembered."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ragserve.cache import LocalCache
from ragserve.embed import Embedder
from ragserve.errors import UpstreamFailed
from ragserve.metrics import EMBEDDING_CACHE

Array = npt.NDArray[np.float32]

ENTRY_OVERHEAD_BYTES = 200
"""A cache entry's key and bookkeeping, roughly."""


class Vectors:
    """An embedder behind a cache of ``capacity_bytes``."""

    def __init__(self, embedder: Embedder, capacity_bytes: int) -> None:
        self._embedder = embedder
        self._known: LocalCache[str, Array] = LocalCache(capacity_bytes)

    async def of_question(self, text: str) -> Array | None:
        """Return the question's unit vector.

        None if a remote embedder fails: words can still be searched.
        """
        normal = " ".join(unicodedata.normalize("NFKC", text).split())
        try:
            vectors = await self.of_texts([normal])
        except UpstreamFailed:
            return None
        vector: Array = vectors[0]
        return vector

    async def of_texts(self, texts: Sequence[str]) -> Array:
        """Return unit vectors of shape (texts, dimensions)."""
        now = asyncio.get_running_loop().time()
        known = {text: self._known.get(text, now) for text in texts}
        missing = [text for text, vector in known.items() if vector is None]
        EMBEDDING_CACHE.labels("miss").inc(len(missing))
        EMBEDDING_CACHE.labels("hit").inc(len(known) - len(missing))
        if missing:
            for text, vector in zip(missing, await self._embedder.embed(missing), strict=True):
                known[text] = vector
                size = vector.nbytes + len(text) + ENTRY_OVERHEAD_BYTES
                # A row of its own: a view would keep the whole batch in memory.
                self._known.put(text, vector.copy(), size)
        return np.stack([vector for text in texts if (vector := known[text]) is not None])

    def __repr__(self) -> str:
        return f"<Vectors {self._known!r}>"
