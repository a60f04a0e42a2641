"""Text to vectors: MiniLM on this machine, or any OpenAI-compatible embedder."""

from ragserve.embed.embedder import Embedder, open_embedder

__all__ = ["Embedder", "open_embedder"]
