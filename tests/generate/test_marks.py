"""Marks resolve alike however a text is cut on its way."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.generate.marks import LONGEST_MARK, Marks

TEXTS = st.text("a [],0123 9\n.", max_size=60)


def _whole(text: str, passages: int = 3) -> tuple[str, list[int]]:
    marks = Marks(passages)
    return marks.feed(text) + marks.end(), list(marks.indexes)


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
        ("It boils [[0]2].", "It boils [ 2].", [1, 2, 3]),
        ("See [link](x) [a1] [].", "See [link](x) [a1] [].", [1, 2, 3]),
    ],
)
def test_marks_become_citations(text: str, resolved: str, cited: list[int]) -> None:
    """Lists are taken apart, unknown numbers dropped; without any mark all passages count."""
    assert _whole(text) == (resolved, cited)


@given(text=st.text("a [],0123 9\n.", max_size=40), count=st.integers(0, 3))
def test_every_mark_has_a_citation(text: str, count: int) -> None:
    """Whatever a model writes, each number in brackets is the index of a citation."""
    answer, indexes = _whole(text, count)
    marks = {int(number) for number in re.findall(r"\[(\d+)\]", answer)}
    assert marks <= set(indexes)
    assert indexes == sorted(set(indexes))
    assert set(indexes) <= set(range(1, count + 1))


@given(text=TEXTS, cuts=st.lists(st.integers(0, 60), max_size=12))
def test_pieces_make_no_difference(text: str, cuts: list[int]) -> None:
    """Text and citations are the same for every division into pieces."""
    marks = Marks(3)
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    said = "".join(marks.feed(text[a:b]) for a, b in itertools.pairwise(at)) + marks.end()
    assert (said, list(marks.indexes)) == _whole(text)


def test_plain_words_pass_at_once() -> None:
    """What cannot belong to a mark is not held back."""
    marks = Marks(3)
    assert [marks.feed(piece) for piece in ("Water", " boils", " [", "2", "]", ".", " It")] == [
        "Water", " boils", "", "", " [2]", ".", " It",
    ]  # fmt: skip
    assert marks.end() == ""
    assert marks.indexes == [2]


def test_white_space_around_the_answer_is_dropped() -> None:
    """An answer begins with its first word and ends with its last one."""
    marks = Marks(1)
    assert [marks.feed(piece) for piece in ("\n", "  Yes", ". \n", "\n")] == ["", "Yes", ".", ""]
    assert marks.end() == ""


def test_a_bracket_is_not_held_for_ever() -> None:
    """A bracket followed by more than a mark's length is text."""
    marks = Marks(3)
    said = marks.feed("See [" + "1," * LONGEST_MARK)
    assert said.startswith("See [1,1,")
