"""What BM25 has to say in a hybrid: much where scores fall steeply, nothing where they do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.retrieve.fuse import CANDIDATES, TENTH, lexical_scores

hits = st.lists(
    st.floats(1e-6, 1e4, allow_nan=False, allow_infinity=False), max_size=CANDIDATES
).map(lambda scores: list(enumerate(sorted(scores, reverse=True))))


def test_no_hits_say_nothing() -> None:
    """Without hits there are no scores."""
    assert lexical_scores([]) == []


def test_a_single_hit_has_the_full_voice() -> None:
    """The only passage with the words scores 1."""
    assert lexical_scores([(7, 0.01)]) == [(7, 1.0)]


@pytest.mark.parametrize("count", [TENTH + 1, CANDIDATES])
def test_flat_scores_get_no_voice(count: int) -> None:
    """If the words do not tell passages apart, every passage scores 0."""
    flat = [(number, 3.0) for number in range(count)]
    assert lexical_scores(flat) == [(number, 0.0) for number in range(count)]


def test_steep_scores_get_full_trust() -> None:
    """A fall of 40 % to the tenth hit lets the best one score 1, the others in proportion."""
    steep = [(1, 10.0), (2, 8.0), *((number, 6.0) for number in range(3, 11))]
    assert lexical_scores(steep) == [(1, 1.0), (2, 0.8), *((n, 0.6) for n in range(3, 11))]


def test_half_as_steep_scores_get_half_the_voice() -> None:
    """A fall of 20 % to the tenth hit halves every score."""
    gentle = [(1, 10.0), *((number, 8.0) for number in range(2, 11))]
    scores = [score for _, score in lexical_scores(gentle)]
    assert scores == pytest.approx([0.5] + [0.4] * 9)


def test_the_last_hit_inside_the_cut_scores_nothing() -> None:
    """With as many hits as the cut allows, the last one scores like those outside: 0."""
    falling = [(number, 200.0 - number) for number in range(CANDIDATES)]
    scores = lexical_scores(falling)
    assert scores[-1] == (CANDIDATES - 1, 0.0)
    assert scores[0][1] > scores[1][1] > 0.0
    one_less = lexical_scores(falling[:-1])
    assert one_less[-1][1] > 0.0


@given(hits=hits)
def test_scores_are_shares_in_the_order_of_the_hits(hits: list[tuple[int, float]]) -> None:
    """Any hits give as many scores between 0 and 1, in their order."""
    scored = lexical_scores(hits)
    assert [identity for identity, _ in scored] == [identity for identity, _ in hits]
    scores = [score for _, score in scored]
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert scores == sorted(scores, reverse=True)


@given(hits=hits, factor=st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
def test_the_scale_of_bm25_does_not_matter(hits: list[tuple[int, float]], factor: float) -> None:
    """A question whose scores are all twice as high gives the same shares."""
    scaled = [(identity, score * factor) for identity, score in hits]
    assert lexical_scores(scaled) == lexical_scores(hits)
