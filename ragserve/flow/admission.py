"""Whether to begin with a request at all: refused at the entrance, it has cost next to nothing.

A request passes several gates. It is refused if, as things go, it would wait longer at them than
the most impatient of them allows, or than it has time.
"""

from __future__ import annotations

import math
import random
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
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing

    def refusal(self, tenant: str, now: float, deadline: Deadline | None = None) -> float:
        """Return after how many seconds a request that is refused may come back; 0: let it in."""
        still = self._still.get(tenant)
        if still is not None:
            if now < still.until:
                still.counted.inc()
                return still.retry_after_s
            del self._still[tenant]
        expected_s = typical_s = 0.0
        for gate in self.gates:
            wait_s = gate.expected_wait_s(tenant)
            expected_s += wait_s
            typical_s += gate.typical_s
            if gate.is_too_long(wait_s, tenant, now):
                retry_after_s = self._count(gate, "queue", expected_s)
                counted = self._refused[gate.name, "queue"]
                self._still[tenant] = _Still(now + STILL_S, retry_after_s, counted)
                return retry_after_s
        if deadline is not None and expected_s + typical_s > deadline.remaining_s(now):
            return self._count(self.gates[-1], "deadline", expected_s)
        return 0.0

    def check(self, tenant: str, now: float, deadline: Deadline | None = None) -> None:
        """Raise ``Overloaded`` if a request of ``tenant`` should not begin now."""
        retry_after_s = self.refusal(tenant, now, deadline)
        if retry_after_s:
            raise overloaded(retry_after_s)

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
