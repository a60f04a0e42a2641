"""Planning from results."""

from __future__ import annotations

import pytest

from bench.plan import Costs, costs, plan

COST = Costs(cached_us=20.0, uncached_us=2000.0, memory_mb=400.0)


def test_cores_follow_from_cost() -> None:
    """2,000 requests/s at 416 µs each, half a core of headroom: two cores."""
    made = plan(1000, 0.5, 0.8, COST)
    assert (made.requests_per_s, made.cores) == (2000.0, 2)


def test_a_cached_world_needs_one_core() -> None:
    """2,000 users who ask only what is cached need one core."""
    assert plan(2000, 0.5, 1.0, COST).cores == 1


def test_a_missing_scenario_is_named() -> None:
    """Without a result the command that makes it is named."""
    with pytest.raises(LookupError, match=r"python -m bench\.run cached-1000"):
        costs([])
