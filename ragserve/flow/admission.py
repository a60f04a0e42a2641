"""Whether to begin with a request at all: refused at the entrance, it has cost next to nothing.

A request passes several gates. It is refused if, as things go, it would wait longer at them than
the most impatient of them allows, or than it has time.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ragserve.errors import Overloaded
from ragserve.flow.bounded import Bounded
from ragserve.flow.deadline import Deadline
from ragserve.flow.gate import Gate
from ragserve.metrics import Count, admission_refused

STILL_S = 0.01
"""A tenant that has been refused is refused for so long without another look: in a flood that is
most of what a refusal costs, and no queue that is too long gets short within it."""
ENTERING_S = 0.25
"""Who has been let in is where it is seen by then, or never comes there: it was no question."""
TENANTS = 10_000
RETRY_S = (0.5, 1.5)
"""Those who are refused come back after their expected wait and so much at random."""


class _Still(NamedTuple):
    """What a tenant is told until then."""

    until: float
    retry_after_s: float
    counted: Count


class Admission:
    """The gates of a worker, in the order in which requests pass them."""

    def __init__(self, gates: Sequence[Gate], rng: random.Random | None = None) -> None:
        self.gates = tuple(gates)
        self._refused = {
            (gate.name, reason): admission_refused(gate.name, reason)
            for gate in self.gates
            for reason in ("queue", "deadline")
        }
        self._still: Bounded[str, _Still] = Bounded(TENANTS)
        self._entering: Bounded[str, deque[float]] = Bounded(TENANTS)
        """Until when those count who have been let in and are on their way to the first gate."""
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing

    def refusal(
        self, tenant: str, now: float, deadline: Deadline | None = None, *, let_in: bool = False
    ) -> float:
        """Return after how many seconds a request that is refused may come back; 0: let it in.

        Of one that was ``let_in`` before only the deadline is looked at.
        """
        still = None if let_in else self._still.get(tenant)
        if still is not None:
            if now < still.until:
                still.counted.inc()
                return still.retry_after_s
            del self._still[tenant]
        expected_s = typical_s = 0.0
        entering = self._count_entering(tenant, now)
        for gate in self.gates:
            wait_s = gate.expected_wait_s(tenant, entering)
            entering = 0  # those who wait at the first gate are not counted at the next one either
            expected_s += wait_s
            typical_s += gate.typical_s
            if not let_in and gate.is_too_long(wait_s, tenant, now):
                retry_after_s = self._count(gate, "queue", expected_s)
                counted = self._refused[gate.name, "queue"]
                self._still[tenant] = _Still(now + STILL_S, retry_after_s, counted)
                return retry_after_s
        if deadline is not None and expected_s + typical_s > deadline.remaining_s(now):
            return self._count(self.gates[-1], "deadline", expected_s)
        return 0.0

    def check(
        self, tenant: str, now: float, deadline: Deadline | None = None, *, let_in: bool = False
    ) -> None:
        """Raise ``Overloaded`` if a request of ``tenant`` should not begin now."""
        retry_after_s = self.refusal(tenant, now, deadline, let_in=let_in)
        if retry_after_s:
            raise overloaded(retry_after_s)

    def let_in(self, tenant: str, now: float) -> None:
        """Take note that a request is on its way to the gates, where it is not seen yet.

        Without this all who come meanwhile would find the same room, and be refused late and dear.
        """
        entering = self._entering.get(tenant)
        if entering is None:
            entering = self._entering[tenant] = deque()
        entering.append(now + ENTERING_S)

    def has_let_in(self, tenant: str, now: float) -> bool:
        """Return whether an arriving request of ``tenant`` was let in; it counts no longer."""
        if not self._count_entering(tenant, now):
            return False
        self._entering[tenant].popleft()
        return True

    def _count_entering(self, tenant: str, now: float) -> int:
        entering = self._entering.get(tenant)
        if entering is None:
            return 0
        while entering and entering[0] < now:
            entering.popleft()
        if not entering:
            del self._entering[tenant]
        return len(entering)

    def _count(self, gate: Gate, reason: str, expected_s: float) -> float:
        self._refused[gate.name, reason].inc()
        return expected_s + self._rng.uniform(*RETRY_S)

    def __repr__(self) -> str:
        return f"<Admission {', '.join(map(repr, self.gates))}>"


def overloaded(retry_after_s: float) -> Overloaded:
    """Return the error of a request that is refused."""
    return Overloaded(
        f"the server is at its limit; try again in {math.ceil(retry_after_s)} s",
        retry_after_s=retry_after_s,
    )
