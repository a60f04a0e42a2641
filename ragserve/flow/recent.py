"""The latest of many measurements, and what most of them stay below. Pure."""

from __future__ import annotations

from collections import deque

KEPT = 256
"""Enough for a 95th percentile, few enough to be sorted whenever it is asked for (10 µs)."""
ENOUGH = 20
"""Fewer say nothing of the slowest twentieth."""


class Recent:
    """The last ``KEPT`` values."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=KEPT)

    def add(self, value: float) -> None:
        """Take note of one."""
        self._values.append(value)

    def percentile(self, percent: float) -> float | None:
        """Return what so many of a hundred do not exceed; None while there are too few."""
        if len(self._values) < ENOUGH:
            return None
        ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def __repr__(self) -> str:
        return f"<Recent {len(self._values)} values>"
