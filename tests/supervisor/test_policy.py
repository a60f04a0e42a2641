"""What follows from the end of a child process."""

from __future__ import annotations

import random

import pytest

from ragserve.errors import EXIT_CONFIGURATION, EXIT_CRASH_LOOP, EXIT_FAILURE, EXIT_UNAVAILABLE
from ragserve.supervisor.policy import GiveUp, Restart, RestartPolicy


class _Longest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


def _decide(*exits: tuple[int, float, float]) -> list[Restart | GiveUp]:
    """Return the decisions on exits, each a code, the child's age and the time."""
    policy = RestartPolicy(_Longest())
    return [policy.exited(code, now - age, now) for code, age, now in exits]


@pytest.mark.parametrize("code", [0, EXIT_FAILURE, EXIT_UNAVAILABLE, -9, -11])
def test_a_child_that_lived_is_restarted_at_once(code: int) -> None:
    """After ten seconds of life any end is followed by a start, every time."""
    exits = [(code, 10.0, 100.0 + 10 * n) for n in range(20)]
    assert _decide(*exits) == [Restart(now) for _, _, now in exits]


@pytest.mark.parametrize("age", [0.1, 9.9, 10.0, 1e6])
def test_a_wrong_configuration_ends_everything(age: float) -> None:
    """Trying again does not help against a wrong configuration, whatever the child's age."""
    assert _decide((EXIT_CONFIGURATION, age, 100.0)) == [GiveUp(EXIT_CONFIGURATION)]


@pytest.mark.parametrize("code", [0, EXIT_FAILURE, EXIT_UNAVAILABLE, -9])
def test_a_child_that_dies_young_waits_longer_each_time(code: int) -> None:
    """The first early death costs nothing, the next ones up to 1, 2, 4 s; the fifth is the end."""
    assert _decide(*[(code, 1.0, 100.0 + n) for n in range(5)]) == [
        Restart(100.0),
        Restart(101.0 + 1.0),
        Restart(102.0 + 2.0),
        Restart(103.0 + 4.0),
        GiveUp(EXIT_CRASH_LOOP),
    ]


def test_delays_are_jittered() -> None:
    """Children that die together do not come back together."""

    def second_start(seed: int) -> float:
        policy = RestartPolicy(random.Random(seed))
        policy.exited(1, 0.0, 1.0)
        decision = policy.exited(1, 1.0, 2.0)
        assert isinstance(decision, Restart)
        return decision.at

    starts = {second_start(seed) for seed in range(50)}
    assert len(starts) == 50
    assert min(starts) >= 2.0
    assert max(starts) <= 3.0


def test_a_long_life_forgives_early_deaths() -> None:
    """A child that lived in between begins with a clean record."""
    young = [(1, 1.0, 100.0 + n) for n in range(4)]
    decisions = _decide(*young, (1, 10.0, 120.0), (1, 1.0, 122.0), (1, 1.0, 123.0))
    assert decisions[4:] == [Restart(120.0), Restart(122.0), Restart(123.0 + 1.0)]


def test_early_deaths_long_ago_do_not_count() -> None:
    """Five early deaths make a crash loop within a minute only."""
    assert _decide(*[(1, 1.0, t) for t in (0.0, 15.0, 30.0, 45.0, 60.0)])[-1] == GiveUp(
        EXIT_CRASH_LOOP
    )
    assert _decide(*[(1, 1.0, t) for t in (0.0, 15.0, 30.0, 45.0, 60.1)])[-1] == Restart(60.1 + 4.0)
    assert _decide((1, 1.0, 0.0), (1, 1.0, 61.0))[-1] == Restart(61.0)
