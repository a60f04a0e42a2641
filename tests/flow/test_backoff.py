"""Backoff: never longer than promised, never in step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.flow.backoff import backoff_s


class _Longest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


@pytest.mark.parametrize(
    ("attempt", "longest_s"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 10.0), (1000, 10.0)]
)
def test_the_bound_doubles_up_to_the_cap(attempt: int, longest_s: float) -> None:
    """The longest wait doubles with each failed try and stops at the cap."""
    assert backoff_s(attempt, base_s=0.5, cap_s=10.0, rng=_Longest()) == longest_s


@given(attempt=st.integers(1, 1000), seed=st.integers())
def test_a_wait_lies_within_its_bounds(attempt: int, seed: int) -> None:
    """A wait is never negative and never over the bound of its try."""
    wait_s = backoff_s(attempt, base_s=0.5, cap_s=10.0, rng=random.Random(seed))
    assert 0.0 <= wait_s <= min(10.0, 0.5 * 2.0 ** (attempt - 1))


def test_waits_differ() -> None:
    """Clients that failed together do not come back together."""
    rng = random.Random(1)
    waits = [backoff_s(4, base_s=0.5, cap_s=10.0, rng=rng) for _ in range(100)]
    assert len(set(waits)) == 100
    assert min(waits) < 1.0 < 3.0 < max(waits)
