"""Which passages are about the question at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ragserve.retrieve.search import Found
from ragserve.schema import SearchResult

FEW_TERMS = 3
"""A question of so few terms says too little for its vector to be near anything."""


def relevant(
    found: Found, question: str, floor: float, terms: Callable[[str], Sequence[str]]
) -> list[SearchResult]:
    """Return the passages with a cosine of at least ``floor`` to the question.

    A question of few terms also accepts passages that hold all of them; ``terms`` maps a text to
    its terms. Without cosines, what the words have found is taken as it is.
    """
    if found.similarities is None:
        return list(found.results)
    wanted = set(terms(question))
    by_words = 0 < len(wanted) <= FEW_TERMS
    return [
        result
        for result, similarity in zip(found.results, found.similarities, strict=True)
        if similarity >= floor
        or (by_words and wanted.issubset(terms(f"{result.title} {result.text}")))
    ]
