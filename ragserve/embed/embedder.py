"""What an embedder is, and which one the configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ragserve.config import EmbeddingConfig
from ragserve.flow.breaker import Alone, Trials


class Embedder(Protocol):
    """Turns texts into unit vectors.

    ``name`` and ``dimensions`` identify the model: collections remember both.
    """

    name: str
    dimensions: int

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return an array of shape (texts, dimensions) with unit rows.

        Raises ``Overloaded`` if too much waits already, ``UpstreamFailed`` if a remote embedder
        fails.
        """

    async def close(self) -> None:
        """Give up threads and connections."""


async def open_embedder(
    config: EmbeddingConfig, trials: Callable[[str], Trials] = lambda _: Alone()
) -> Embedder:
    """Load or reach the configured model; return it warm.

    ``trials`` are those of a server by its name, shared by those who ask it on this host.
    """
    if config.provider == "openai":
        from ragserve.embed.remote import RemoteEmbedder

        return await RemoteEmbedder.open(config, trials(f"embedder {config.base_url}"))
    from ragserve.embed.local import LocalEmbedder

    return await LocalEmbedder.open(config)
