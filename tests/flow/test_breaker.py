"""The breaker: when calls pass, and how it finds back."""

from __future__ import annotations

import random

import pytest

from ragserve.flow.breaker import Breaker


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(failures=3, base_s=1.0, cap_s=8.0, rng=random.Random(1))


def trip(breaker: Breaker, now: float = 0.0) -> None:
    for _ in range(3):
        assert breaker.try_pass(now)
        breaker.failed(now)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    """A success in between starts the count again."""
    for _ in range(5):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == "closed"
    trip(breaker)
    assert repr(breaker) == "<Breaker open, 3 failures in a row>"
    assert not breaker.try_pass(0.4)
    assert 0.5 <= breaker.retry_at <= 1.0


def test_one_trial_decides(breaker: Breaker) -> None:
    """After the pause exactly one call passes; its success lets all pass again."""
    trip(breaker)
    now = breaker.retry_at
    assert [breaker.try_pass(now) for _ in range(3)] == [True, False, False]
    assert breaker.state == "trial"
    breaker.succeeded()
    assert [breaker.try_pass(now) for _ in range(3)] == [True, True, True]


def test_failed_trials_make_longer_pauses(breaker: Breaker) -> None:
    """Pauses double up to the cap, with jitter between half and all of them."""
    trip(breaker)
    now = breaker.retry_at
    for pause_s in (2.0, 4.0, 8.0, 8.0):
        assert breaker.try_pass(now)
        breaker.failed(now)
        assert pause_s / 2 <= breaker.retry_at - now <= pause_s
        now = breaker.retry_at


def test_it_can_be_opened_at_once(breaker: Breaker) -> None:
    """Whoever knows that calls will fail need not wait for failures."""
    breaker.trip(0.0)
    assert breaker.state == "open"
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.state == "closed"


def test_late_failures_do_not_prolong_it(breaker: Breaker) -> None:
    """Calls that were under way when it opened tell nothing new."""
    trip(breaker)
    before = breaker.retry_at
    breaker.failed(0.3)
    assert breaker.retry_at == before


def test_an_abandoned_trial_is_followed_by_another(breaker: Breaker) -> None:
    """A trial whose outcome is never told blocks nobody for ever."""
    trip(breaker)
    now = breaker.retry_at
    assert breaker.try_pass(now)
    assert not breaker.try_pass(now + 0.9)
    assert breaker.try_pass(now + 1.0)
