"""Reading a collection's index: follows the writer's commits, never waits for them.

The writer replaces ``meta.json`` at every commit. A reader looks at its time stamp at most every
``RECHECK_S`` and reloads when it changed: two microseconds a look, no thread, no notification
that could be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import tantivy

from ragserve.index.analysis import analyzer_of
from ragserve.index.layout import (
    FORMAT,
    STATE_KEY,
    IndexState,
    Record,
    build_schema,
    damage_is_an_error,
)

TITLE_BOOST = 0.5
"""A term in the title counts again by half (nDCG@10 of BM25 on cranfield: 0.353 to 0.371)."""
RECHECK_S = 0.05
PREFIXES_KEPT = 64
"""Ranges over the same key come again; over many different ones they come from a guesser."""
QUESTION_TERMS = 128
"""A question of more terms is a document; the rarest would still decide."""


class CollectionIndex:
    """A reader of one collection's index. Raises ``ValueError`` if it cannot be opened."""

    def __init__(self, directory: Path) -> None:
        self._meta = directory / "meta.json"
        self._schema = build_schema()
        # Before opening: a commit in between is seen twice rather than never.
        self._stamp = self._stamp_now()
        self._checked_at = 0.0
        self._prefix_terms: dict[str, list[str]] = {}
        with damage_is_an_error():
            self._index = tantivy.Index.open(str(directory))
            self._index.config_reader("manual")
            self._searcher = self._index.searcher()
            self.state = self._read_state()

    @property
    def documents(self) -> int:
        """How many passages the index holds."""
        return self._searcher.num_docs - 1

    def refresh(self, now: float, *, every_s: float = RECHECK_S) -> None:
        """Follow the writer if it committed; look at most every ``every_s`` seconds."""
        if now - self._checked_at < every_s:
            return
        self._checked_at = now
        stamp = self._stamp_now()
        if stamp != self._stamp:
            with damage_is_an_error():
                self._index.reload()
                self._searcher = self._index.searcher()
                self.state = self._read_state()
            self._stamp = stamp
            self._prefix_terms.clear()

    def question_terms(self, text: str) -> list[str]:
        """Return the question's terms in the collection's language."""
        return analyzer_of(self.state.language).terms(text)[:QUESTION_TERMS]

    def candidates(
        self, terms: Sequence[str], limit: int, required: Sequence[Sequence[str]] = ()
    ) -> list[tuple[int, float]]:
        """Return chunk ids and BM25 scores of the best passages that hold any of ``terms``.

        ``required`` is a conjunction of disjunctions of metadata terms. Best first.
        """
        hits = self._search(terms, limit, required)
        chunks = self._searcher.fast_field_values("chunk", [address for _, address in hits])
        return [(int(chunk or 0), score) for (score, _), chunk in zip(hits, chunks, strict=True)]

    def passages(
        self, terms: Sequence[str], limit: int, required: Sequence[Sequence[str]] = ()
    ) -> list[tuple[Record, float]]:
        """Return, like ``candidates``, what results show of the best passages."""
        searcher = self._searcher  # addresses are those of one searcher
        return [
            (msgspec.json.decode(_stored(searcher, address), type=Record), score)
            for score, address in self._search(terms, limit, required)
        ]

    def terms_with_prefix(self, prefix: str) -> list[str]:
        """Return the metadata terms that start with ``prefix``, in order; kept until a change."""
        terms = self._prefix_terms.get(prefix)
        if terms is None:
            found = self._searcher.terms_with_prefix("metadata", prefix)
            while len(self._prefix_terms) >= PREFIXES_KEPT:
                del self._prefix_terms[next(iter(self._prefix_terms))]
            terms = self._prefix_terms[prefix] = sorted(term for term, _ in found)
        return terms

    def _search(
        self, terms: Sequence[str], limit: int, required: Sequence[Sequence[str]]
    ) -> list[tuple[float, tantivy.DocAddress]]:
        if not terms:
            return []
        query = tantivy.Query.boolean_query(
            [(tantivy.Occur.Should, part) for term in terms for part in self._parts(term)]
        )
        if required:
            query = tantivy.Query.boolean_query(
                [
                    (tantivy.Occur.Must, query),
                    *((tantivy.Occur.Must, self._any_of(values)) for values in required),
                ]
            )
        with damage_is_an_error():
            hits: list[tuple[float, tantivy.DocAddress]] = self._searcher.search(
                query, limit, count=False
            ).hits
        return hits

    def _parts(self, term: str) -> tuple[tantivy.Query, tantivy.Query]:
        in_title = tantivy.Query.term_query(self._schema, "title", term, "freq")
        return (
            tantivy.Query.term_query(self._schema, "body", term, "freq"),
            tantivy.Query.boost_query(in_title, TITLE_BOOST),
        )

    def _any_of(self, values: Sequence[str]) -> tantivy.Query:
        query = tantivy.Query.term_set_query(self._schema, "metadata", list(values))
        return tantivy.Query.const_score_query(query, 0.0)

    def _stamp_now(self) -> tuple[int, int]:
        status = self._meta.stat()
        return status.st_mtime_ns, status.st_ino

    def _read_state(self) -> IndexState:
        query = tantivy.Query.term_query(self._schema, "document", STATE_KEY)
        hits = self._searcher.search(query, 1, count=False).hits
        if not hits:
            raise ValueError("the index has no state")
        state = msgspec.json.decode(_stored(self._searcher, hits[0][1]), type=IndexState)
        if state.format != FORMAT:
            raise ValueError(f"the index has format {state.format}, this release reads {FORMAT}")
        return state

    def __repr__(self) -> str:
        return f"<CollectionIndex {self.documents} passages at version {self.state.version}>"


def _stored(searcher: tantivy.Searcher, address: tantivy.DocAddress) -> bytes:
    stored: bytes = searcher.doc(address)["stored"][0]
    return stored
