"""Passages for answers."""

from __future__ import annotations

import msgspec

from ragserve.schema import SearchResult


def passage(
    text: str,
    *,
    number: int = 1,
    title: str = "Title",
    url: str | None = None,
    page: int | None = None,
    heading: str | None = None,
) -> SearchResult:
    """Return passage ``number`` as a search gives it."""
    return SearchResult(
        document_id=f"doc-{number}",
        chunk_id=str(number),
        title=title,
        url=url,
        score=1.0 / number,
        text=text,
        metadata=msgspec.Raw(b"{}"),
        position=0,
        page=page if page is not None else msgspec.UNSET,
        heading=heading if heading is not None else msgspec.UNSET,
    )


def passages(*texts: str) -> list[SearchResult]:
    """Return passages numbered from 1."""
    return [passage(text, number=number) for number, text in enumerate(texts, 1)]
