"""Cutting sections into passages of a bounded number of tokens.

``semantic-text-splitter`` cuts at the largest boundary that fits: paragraphs, sentences, words.
Measuring every candidate with a tokenizer would cost more than everything else in the pipeline,
so sections are cut by characters first and only passages that turn out to have too many tokens
(code, tables, Chinese) are cut again by tokens. A passage never crosses a section, so its page
and heading are exact.
"""

from __future__ import annotations

from itertools import chain

from semantic_text_splitter import TextSplitter

from ragserve.config import ChunkingConfig
from ragserve.embed.tokens import load_tokenizer
from ragserve.ingest.read import ReadDocument
from ragserve.store.documents import NewChunk

CHARACTERS_PER_TOKEN = 4.7
"""Of English prose, in word pieces."""


class Chunker:
    """Cuts documents by one configuration; holds a tokenizer, so make it once."""

    def __init__(self, config: ChunkingConfig) -> None:
        self._max_tokens = config.max_tokens
        self._tokenizer = load_tokenizer()
        self._by_characters = TextSplitter(
            round(config.max_tokens * CHARACTERS_PER_TOKEN),
            overlap=round(config.overlap_tokens * CHARACTERS_PER_TOKEN),
        )
        self._by_tokens = TextSplitter.from_huggingface_tokenizer(
            self._tokenizer, config.max_tokens, overlap=config.overlap_tokens
        )

    def chunks(self, document: ReadDocument) -> list[NewChunk]:
        """Return the passages in the order of the document."""
        return [
            NewChunk(text, section.page, section.heading)
            for section in document.sections
            for text in self._cut(section.text)
        ]

    def _cut(self, text: str) -> list[str]:
        pieces = self._by_characters.chunks(text)
        # No piece has more tokens than characters.
        counted = [piece for piece in pieces if len(piece) > self._max_tokens]
        encodings = self._tokenizer.encode_batch_fast(counted, add_special_tokens=False)
        long = {
            piece
            for piece, encoding in zip(counted, encodings, strict=True)
            if len(encoding.ids) > self._max_tokens
        }
        if not long:
            return pieces
        return list(
            chain.from_iterable(
                self._by_tokens.chunks(piece) if piece in long else [piece] for piece in pieces
            )
        )


def searchable_text(title: str, heading: str | None, text: str) -> str:
    """Return what is embedded and indexed: the passage with its context above it."""
    context = [part for part in (title, heading) if part and not text.startswith(part)]
    return "\n".join([*context, text])
