"""Vectors of questions and sentences, computed once and then remembered."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ragserve.cache import LocalCache
from ragserve.cache.shared import SharedCache
from ragserve.embed import Embedder
from ragserve.errors import UpstreamFailed
from ragserve.metrics import EMBEDDING_CACHE

Array = npt.NDArray[np.float32]

ENTRY_OVERHEAD_BYTES = 200
"""A cache entry's key and bookkeeping, roughly."""
SHARED_S = 7 * 86400.0
"""A vector is true for ever; unused ones must make room."""


class Vectors:
    """An embedder behind a cache of ``capacity_bytes``; questions' vectors are shared, too."""

    def __init__(
        self, embedder: Embedder, capacity_bytes: int, shared: SharedCache | None = None
    ) -> None:
        self._embedder = embedder
        self._shared = shared
        self._known: LocalCache[str, Array] = LocalCache(capacity_bytes)

    async def of_question(self, text: str) -> Array | None:
        """Return the question's unit vector.

        None if a remote embedder fails: words can still be searched.
        """
        normal = " ".join(unicodedata.normalize("NFKC", text).split())
        vector = await self._of_others(normal)
        if vector is not None:
            return vector
        try:
            vectors = await self.of_texts([normal])
        except UpstreamFailed:
            return None
        computed: Array = vectors[0]
        if self._shared is not None:
            data = np.asarray(computed, "<f4").tobytes()
            self._shared.soon(self._shared.set(self._name(normal), data, ttl=SHARED_S))
        return computed

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
                # A row of its own: a view would keep the whole batch in memory.
                self._keep(text, vector.copy())
        return np.stack([vector for text in texts if (vector := known[text]) is not None])

    async def _of_others(self, text: str) -> Array | None:
        """Return what another worker found out, unless it is known here already."""
        if self._shared is None or text in self._known:
            return None
        data = await self._shared.get(self._name(text))
        if data is None or len(data) != 4 * self._embedder.dimensions:
            return None
        EMBEDDING_CACHE.labels("shared").inc()
        vector: Array = np.frombuffer(data, "<f4").astype(np.float32)
        self._keep(text, vector)
        return vector

    def _name(self, text: str) -> str:
        model = f"{self._embedder.name} {self._embedder.dimensions}".encode()
        return f"vector:{blake2b(text.encode(), key=model[:64], digest_size=20).hexdigest()}"

    def _keep(self, text: str, vector: Array) -> None:
        self._known.put(text, vector, vector.nbytes + len(text) + ENTRY_OVERHEAD_BYTES)

    def __repr__(self) -> str:
        return f"<Vectors {self._known!r}>"
