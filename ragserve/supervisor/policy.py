"""What to do when a child process ends: pure, takes ``now``, returns a decision.

A child that lived is restarted at once. One that keeps dying young is restarted after a growing,
jittered delay, and after ``CRASH_LOOP_EXITS`` such deaths within ``CRASH_LOOP_S`` the supervisor
gives up, because a restart has shown not to help.
"""

from __future__ import annotations

import random
from collections import deque
from typing import NamedTuple

from ragserve.errors import EXIT_CONFIGURATION, EXIT_CRASH_LOOP
from ragserve.flow.backoff import backoff_s

YOUNG_S = 10.0
"""A child that dies before this age died of starting."""
CRASH_LOOP_EXITS = 5
CRASH_LOOP_S = 60.0
BASE_S = 0.5
CAP_S = 10.0


class Restart(NamedTuple):
    """Start the child again at time ``at``."""

    at: float


class GiveUp(NamedTuple):
    """End everything with this exit code."""

    code: int


class RestartPolicy:
    """The history of one child and what follows from it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._young_deaths: deque[float] = deque(maxlen=CRASH_LOOP_EXITS)

    def exited(self, code: int, started_at: float, now: float) -> Restart | GiveUp:
        """Decide what follows from an exit with ``code`` of a child started at ``started_at``."""
        if code == EXIT_CONFIGURATION:
            return GiveUp(code)
        if now - started_at >= YOUNG_S:
            self._young_deaths.clear()
            return Restart(now)
        self._young_deaths.append(now)
        deaths = [death for death in self._young_deaths if now - death <= CRASH_LOOP_S]
        if len(deaths) >= CRASH_LOOP_EXITS:
            return GiveUp(EXIT_CRASH_LOOP)
        if len(deaths) == 1:
            return Restart(now)
        return Restart(now + backoff_s(len(deaths), base_s=BASE_S, cap_s=CAP_S, rng=self._rng))
