"""Marks in an answer lead to the passages it was made from, and nowhere else."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.generate.answer import cite, resolve_marks
from tests.generate.samples import passage, passages

FOUND = passages("One.", "Two.", "Three.")


@pytest.mark.parametrize(
    ("text", "resolved", "cited"),
    [
        ("Water boils [2].", "Water boils [2].", [2]),
        ("It boils[2] and cools [1].", "It boils[2] and cools [1].", [1, 2]),
        ("It boils [3, 1].", "It boils [3][1].", [1, 3]),
        ("It boils [1,2 ,3]", "It boils [1][2][3]", [1, 2, 3]),
        ("It boils [2] indeed [2].", "It boils [2] indeed [2].", [2]),
        ("It boils [7].", "It boils.", [1, 2, 3]),
        ("It boils [0][2].", "It boils[2].", [2]),
        ("It boils [2, 9].", "It boils [2].", [2]),
        ("It boils.", "It boils.", [1, 2, 3]),
        ("See [link](x) [a1] [].", "See [link](x) [a1] [].", [1, 2, 3]),
    ],
)
def test_marks_become_citations(text: str, resolved: str, cited: list[int]) -> None:
    """Lists are taken apart, unknown numbers dropped; without any mark all passages count."""
    answer, citations = resolve_marks(text, FOUND)
    assert answer == resolved
    assert [citation.index for citation in citations] == cited
    assert [citation.chunk_id for citation in citations] == [str(number) for number in cited]


@given(text=st.text("a [],0123 9\n.", max_size=40), count=st.integers(0, 3))
def test_every_mark_has_a_citation(text: str, count: int) -> None:
    """Whatever a model writes, each number in brackets is the index of a citation."""
    answer, citations = resolve_marks(text, FOUND[:count])
    indexes = [citation.index for citation in citations]
    marks = {int(number) for number in re.findall(r"\[(\d+)\]", answer)}
    assert marks <= set(indexes)
    assert indexes == sorted(set(indexes))
    assert set(indexes) <= set(range(1, count + 1))


def test_a_citation_shows_its_place() -> None:
    """A citation has the passage's text, score and place; what is not known is left out."""
    shown = cite(4, passage("Text.", number=2, title="T", url="http://x/", page=3, heading="H"))
    assert msgspec.to_builtins(shown) == {
        "index": 4,
        "document_id": "doc-2",
        "chunk_id": "2",
        "title": "T",
        "score": 0.5,
        "text": "Text.",
        "url": "http://x/",
        "page": 3,
        "heading": "H",
    }
    bare = msgspec.to_builtins(cite(1, passage("Text.")))
    assert bare.keys() == {"index", "document_id", "chunk_id", "title", "score", "text"}
