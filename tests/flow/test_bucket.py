"""Token buckets: exactly so many, back at exactly that time, and a bounded number of them."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.flow.bucket import Buckets, Rate


def test_one_token_is_taken_in_one_step_as_in_two() -> None:
    quick, plain = (Buckets(Rate.per_minute(60, burst=3), bound=10) for _ in range(2))
    rng = random.Random(7)
    now = 0.0
    for _ in range(5000):
        now += rng.choice((0.0, 0.3, 1.0, 1.7, 5.0))
        who = rng.choice("ab")
        left = quick.try_take(who, now)
        assert (left >= 0) == (plain.take(who, now) == 0.0)
        if left >= 0:
            assert left == pytest.approx(plain.left(who, now))


def test_a_full_bucket_holds_its_burst() -> None:
    """60 a minute with a burst of 3: three at once, then one a second."""
    buckets = Buckets(Rate.per_minute(60, burst=3), bound=10)
    assert [buckets.take("a", 100.0) for _ in range(4)] == [0.0, 0.0, 0.0, pytest.approx(1.0)]
    assert buckets.take("a", 100.9) == pytest.approx(0.1)
    assert buckets.take("a", 101.0) == 0.0
    assert buckets.take("b", 101.0) == 0.0


def test_what_is_left() -> None:
    """Tokens come back one by one; asking takes none."""
    buckets = Buckets(Rate.per_minute(60, burst=4), bound=10)
    assert buckets.left("a", 0.0) == 4
    buckets.take("a", 0.0, tokens=3)
    assert buckets.left("a", 0.0) == pytest.approx(1)
    assert buckets.left("a", 1.5) == pytest.approx(2.5)
    assert buckets.left("a", 99.0) == 4
    assert buckets.wait_s("a", 0.0) == 0.0


def test_the_bound_forgets_who_came_longest_ago() -> None:
    """A million addresses cost no more memory than the bound; who was here lately is kept."""
    buckets = Buckets(Rate.per_minute(1), bound=3)
    for identity in ("a", "b", "a", "c", "d"):
        buckets.take(identity, 0.0)
    assert len(buckets) == 3
    assert buckets.take("b", 0.0) == 0.0, "forgotten"
    assert buckets.take("d", 0.0) > 0.0


@given(
    rate=st.floats(1, 10_000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 10), max_size=200),
)
def test_never_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float]) -> None:
    """In any span of time at most burst + rate × span pass; and waiting as told always helps."""
    limit = Rate.per_minute(rate, burst)
    full_at = now = 1000.0
    passed: list[float] = []
    for pause in pauses:
        now += pause
        full_at, wait_s = limit.take(full_at, now)
        if wait_s == 0.0:
            passed.append(now)
        else:
            assert limit.take(full_at, now + wait_s + 1e-6)[1] == 0.0
    for begin in range(len(passed)):
        for end in range(begin, len(passed)):
            most = burst + (passed[end] - passed[begin]) * rate / 60
            assert end - begin + 1 <= math.floor(most + 1e-3)


def test_who_has_to_wait_is_not_forgotten() -> None:
    """Others who come and go do not fill the bucket of one that is refused again and again."""
    buckets = Buckets(Rate.per_minute(1), 2)
    buckets.take("refused", 0.0)
    for number in range(5):
        buckets.take(f"other {number}", 0.0)
        assert buckets.wait_s("refused", 0.0) == 60.0
    assert buckets.wait_s("never seen", 0.0) == 0.0
    assert len(buckets) == 2
