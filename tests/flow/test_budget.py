"""Retries: a share of the calls, and a few in reserve."""

from __future__ import annotations

from ragserve.flow.budget import RetryBudget


def test_the_reserve_is_spent_first() -> None:
    """Rare calls may be repeated at once; then there is nothing left."""
    budget = RetryBudget(share=0.0, per_s=0.0, reserve=3.0)
    assert [budget.try_spend() for _ in range(4)] == [True, True, True, False]


def test_calls_earn_their_share() -> None:
    """Of a thousand failing calls a tenth is repeated, beyond the reserve."""
    budget = RetryBudget(share=0.1, per_s=0.0, reserve=10.0)
    retries = 0
    for _ in range(1000):
        budget.earn(0.0)
        retries += budget.try_spend()
    assert 109 <= retries <= 110


def test_time_earns_too_up_to_the_reserve() -> None:
    """Seldom calls are not left without a retry for long; a clock that steps back earns nothing."""
    budget = RetryBudget(share=0.0, per_s=1.0, reserve=2.0)
    budget.earn(100.0)
    assert [budget.try_spend() for _ in range(3)] == [True, True, False]
    budget.earn(90.0)
    assert not budget.try_spend()
    budget.earn(1000.0)
    assert [budget.try_spend() for _ in range(3)] == [True, True, False]
