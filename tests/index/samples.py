"""Passages for index tests."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ragserve.index import CollectionIndex, CollectionWriter, Record


def record(number: int, text: str, *, title: str = "", metadata: bytes = b"{}") -> Record:
    """Return what results show of passage ``number``."""
    return Record(
        document_id=f"doc-{number}",
        chunk_id=str(number),
        title=title,
        url=None,
        text=text,
        metadata=msgspec.Raw(metadata),
        position=0,
    )


def add(
    writer: CollectionWriter, number: int, text: str, *, title: str = "", metadata: bytes = b"{}"
) -> None:
    """Add passage ``number`` of document ``number``, not yet committed."""
    shown = record(number, text, title=title, metadata=metadata)
    writer.add(number, number, f"{title}\n{text}", shown)


def write(directory: Path, *texts: str, language: str = "en") -> None:
    """Make an index at version 1 of passages numbered from 1."""
    with CollectionWriter(directory, language) as writer:
        for number, text in enumerate(texts, 1):
            add(writer, number, text)
        writer.commit(1)


def found(index: CollectionIndex, question: str) -> list[int]:
    """Return the numbers of the passages found, best first."""
    return [number for number, _ in index.candidates(index.question_terms(question), 100)]
