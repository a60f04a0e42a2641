"""One search: dense, lexical, or both fused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from ragserve.config import SearchConfig
from ragserve.errors import Unavailable
from ragserve.index import CollectionIndex, Record
from ragserve.retrieve.filter import Filter
from ragserve.retrieve.fuse import CANDIDATES, lexical_scores
from ragserve.retrieve.indexes import Indexes
from ragserve.schema import Mode, SearchResult
from ragserve.store.collections import Collection
from ragserve.store.replica import Searches
from ragserve.store.search import Passage, fused_passages, nearest_passages

T = TypeVar("T")

INLINE_PASSAGES = 50_000
"""A BM25 search over more of them takes over a millisecond and leaves the event loop."""


PATIENCE_S = 3.0
"""A hybrid search waits so long for the database; then words alone decide (degraded)."""


class Found(msgspec.Struct, frozen=True):
    """Passages, best first.

    ``similarities`` holds the cosine of each to the question, None if no vector was compared;
    ``degraded`` names the dependencies this search had to do without. ``version`` is the one the
    index was at, or before, while it was searched; None if only the database was asked, which is
    never behind what was committed before the question.
    """

    results: Sequence[SearchResult]
    similarities: Sequence[float] | None
    degraded: tuple[str, ...] = ()
    version: int | None = None


class Question(msgspec.Struct, frozen=True):
    """What is searched for: words for BM25, a unit vector for the neighbours.

    After ``patience_s`` the answer of one of the two will do.
    """

    text: str
    vector: npt.NDArray[np.float32] | None
    top_k: int
    mode: Mode
    filter: Filter | None = None
    patience_s: float = PATIENCE_S


async def retrieve(
    searches: Searches,
    indexes: Indexes,
    config: SearchConfig,
    collection: Collection,
    question: Question,
) -> Found:
    """Return the best passages of a collection.

    Without the database a hybrid search falls back to BM25, without the index to vectors, and
    says so. Raises ``Unavailable`` if nothing is left to search with.
    """
    if question.mode == "lexical" or question.vector is None:
        missing = () if question.mode == "lexical" else ("embedder",)
        return await _lexical(indexes, collection, question, missing)
    lexical: list[tuple[int, float]] | None = None
    version: int | None = None
    degraded: tuple[str, ...] = ()
    if question.mode == "hybrid":
        try:
            lexical, version = await _candidates(indexes, collection, question)
        except Unavailable:
            degraded = ("index",)
    try:
        passages = await _compared(searches, config, collection, question, lexical)
    except Unavailable:
        if question.mode != "hybrid" or degraded:
            raise
        return await _lexical(indexes, collection, question, ("database",))
    return Found(
        [_result(passage) for passage in passages],
        [passage.similarity for passage in passages],
        degraded,
        version,
    )


async def _compared(
    searches: Searches,
    config: SearchConfig,
    collection: Collection,
    question: Question,
    lexical: Sequence[tuple[int, float]] | None,
) -> list[Passage]:
    """Return the passages nearest to the question, fused with the ``lexical`` ones if given."""
    assert question.vector is not None  # noqa: S101 - checked by retrieve
    filter_path = question.filter.jsonpath() if question.filter else None
    if lexical is None:
        return await nearest_passages(
            searches, collection, question.vector, top_k=question.top_k, filter_path=filter_path
        )
    return await fused_passages(
        searches,
        collection,
        question.vector,
        lexical,
        candidates=max(question.top_k, CANDIDATES),
        top_k=question.top_k,
        dense_weight=config.dense_weight,
        within_s=question.patience_s,
        filter_path=filter_path,
    )


async def _lexical(
    indexes: Indexes, collection: Collection, question: Question, degraded: tuple[str, ...]
) -> Found:
    index = indexes.get(collection, asyncio.get_running_loop().time())

    def search() -> list[tuple[Record, float]]:
        return index.passages(*_request(index, question, question.top_k))

    found, version = await _run(index, search)
    results = [_record_result(record, score) for record, score in found]
    return Found(results, None, degraded, version)


async def _candidates(
    indexes: Indexes, collection: Collection, question: Question
) -> tuple[list[tuple[int, float]], int]:
    """Return chunk ids with lexical scores between 0 and 1, and the version they come from."""
    index = indexes.get(collection, asyncio.get_running_loop().time())

    def search() -> list[tuple[int, float]]:
        return index.candidates(*_request(index, question, CANDIDATES))

    found, version = await _run(index, search)
    return lexical_scores(found), version


def _request(
    index: CollectionIndex, question: Question, limit: int
) -> tuple[Sequence[str], int, Sequence[Sequence[str]]]:
    required = question.filter.required_terms(index) if question.filter else ()
    return index.question_terms(question.text), limit, required


async def _run(index: CollectionIndex, search: Callable[[], T]) -> tuple[T, int]:
    """Return what ``search`` finds, and the oldest version it can have seen."""
    before = index.state.version
    if index.documents <= INLINE_PASSAGES:
        return search(), before
    found = await asyncio.to_thread(search)
    # Others may have refreshed the index meanwhile; rebuilt, it may even be behind.
    return found, min(before, index.state.version)


def _result(passage: Passage) -> SearchResult:
    return SearchResult(
        document_id=passage.document_id,
        chunk_id=str(passage.id),
        title=passage.title,
        url=passage.url,
        score=passage.score,
        text=passage.text,
        metadata=msgspec.Raw(passage.metadata.encode()),
        position=passage.position,
        page=passage.page if passage.page is not None else msgspec.UNSET,
        heading=passage.heading if passage.heading is not None else msgspec.UNSET,
    )


def _record_result(record: Record, score: float) -> SearchResult:
    return SearchResult(
        document_id=record.document_id,
        chunk_id=record.chunk_id,
        title=record.title,
        url=record.url,
        score=score,
        text=record.text,
        metadata=record.metadata,
        position=record.position,
        page=record.page if record.page is not None else msgspec.UNSET,
        heading=record.heading if record.heading is not None else msgspec.UNSET,
    )
