"""Any OpenAI-compatible ``/v1/embeddings``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ragserve.config import EmbeddingConfig
from ragserve.errors import ConfigurationError, UpstreamFailed
from ragserve.flow.breaker import Trials
from ragserve.tracing import model_span
from ragserve.upstream import Member, Server, Upstream

Vectors = npt.NDArray[np.float32]

PARALLEL_BATCHES = 4
MAX_DIMENSIONS = 4000
"""What pgvector indexes as halfvec."""


class _Item(msgspec.Struct):
    index: int
    embedding: list[float] | str


class _Reply(msgspec.Struct):
    data: list[_Item]


class RemoteEmbedder:
    """An ``Embedder`` behind HTTP; large requests travel as parallel batches."""

    def __init__(self, config: EmbeddingConfig, upstream: Upstream) -> None:
        self.name = config.model
        self.dimensions = config.dimensions
        self._asked_dimensions = config.dimensions
        self._batch_size = config.batch_size
        self._upstream = upstream
        self._slots = asyncio.Semaphore(PARALLEL_BATCHES)

    @classmethod
    async def open(cls, config: EmbeddingConfig, trials: Trials | None = None) -> RemoteEmbedder:
        """Reach the embedder once: checks address, key and model, and learns the dimension."""
        server = Server(
            "embedder",
            config.base_url,
            config.api_key,
            connections=PARALLEL_BATCHES,
            connect_timeout_s=config.timeout_s,
            timeout_s=config.timeout_s,
            ca_file=config.ca_file,
        )
        upstream = Upstream([Member(server, trials=trials)], attempts=config.attempts)
        embedder = cls(config, upstream)
        try:
            found = (await embedder._batch(["warm"])).shape[1]
            if config.dimensions not in (0, found) or found > MAX_DIMENSIONS:
                raise ConfigurationError(
                    f"embedding.model {config.model} answers with {found} dimensions; asked for: "
                    f"{config.dimensions or 'its own'}, at most {MAX_DIMENSIONS}"
                )
        except BaseException:
            await upstream.close()
            raise
        embedder.dimensions = found
        return embedder

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (texts, dimensions) with unit rows."""
        size = self._batch_size
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        parts = await asyncio.gather(*(self._batch(batch) for batch in batches))
        for part in parts:
            if part.shape[1] != self.dimensions:
                raise UpstreamFailed(
                    f"embedder {self.name}: {part.shape[1]} dimensions, not {self.dimensions}"
                )
        return np.concatenate(parts) if parts else np.empty((0, self.dimensions), np.float32)

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.close()

    async def _batch(self, texts: Sequence[str]) -> Vectors:
        body: dict[str, object] = {
            "model": self.name,
            "input": list(texts),
            "encoding_format": "base64",
        }
        if self._asked_dimensions:
            body["dimensions"] = self._asked_dimensions
        async with self._slots:
            with model_span("embeddings", self.name):
                reply = await self._upstream.post("/embeddings", body)
        return _decode(reply, len(texts))


def _decode(reply: bytes, expected: int) -> Vectors:
    try:
        items = sorted(msgspec.json.decode(reply, type=_Reply).data, key=lambda item: item.index)
        # Some servers ignore encoding_format and answer with lists.
        rows = [
            np.frombuffer(base64.b64decode(item.embedding), "<f4")
            if isinstance(item.embedding, str)
            else np.array(item.embedding, np.float32)
            for item in items
        ]
        vectors = np.stack(rows)
    except (msgspec.MsgspecError, ValueError) as error:
        raise UpstreamFailed(f"embedder: unusable answer: {error}") from error
    if len(vectors) != expected:
        raise UpstreamFailed(f"embedder: {len(vectors)} vectors for {expected} texts")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.all(np.isfinite(norms)) or not np.all(norms > 0):
        raise UpstreamFailed("embedder: a vector is zero or not finite")
    unit: Vectors = (vectors / norms).astype(np.float32)
    return unit
