"""How much at once is good for a stage: a limit that follows its latency. Pure.

After Netflix's Gradient2 (concurrency-limits): while what a stage takes stays near what it took in
the long run the limit grows slowly, and when that rises it shrinks in proportion. Latencies are
averaged over short windows, so that one slow call changes nothing. What stays slow for a minute or
two is the long run then, and only the maximum bounds it.
"""

from __future__ import annotations

TOLERANCE = 1.5
"""Latency may rise so much above the long run's before the limit shrinks."""
SMOOTHING = 0.2
ROOM = 4
"""The limit grows by this share of SMOOTHING a window while all is well."""
LONG_RUN = 600
"""Windows in the long run's average, roughly."""
FIRST = 10
"""The first windows are averaged as they are."""
WINDOW_S = 0.1
WINDOW_CALLS = 10
"""A window is as long as both ask for."""


class Gradient:
    """A limit between ``minimum`` and ``maximum``; it begins with the latter."""

    def __init__(self, minimum: int, maximum: int) -> None:
        self.minimum = min(minimum, maximum)
        self.maximum = maximum
        self._limit = float(maximum)
        self._long_s = 0.0
        self._windows = 0
        self._window_end = 0.0
        self._calls = 0
        self._seconds = 0.0
        self._most_used = 0

    @property
    def limit(self) -> int:
        """Return how many may be under way."""
        return int(self._limit)

    def observe(self, seconds: float, used: int, now: float) -> None:
        """Take note of a call that took ``seconds`` while ``used`` were under way."""
        if not self._calls:
            self._window_end = now + WINDOW_S
        self._calls += 1
        self._seconds += seconds
        self._most_used = max(self._most_used, used)
        if self._calls >= WINDOW_CALLS and now >= self._window_end:
            self._close(self._seconds / self._calls)
            self._calls = self._most_used = 0
            self._seconds = 0.0

    def _close(self, short_s: float) -> None:
        self._windows += 1
        share = 1 / self._windows if self._windows <= FIRST else 2 / (LONG_RUN + 1)
        self._long_s += share * (short_s - self._long_s)
        if self._long_s > 2 * short_s:
            # Recovered from a bad time, which must not count for so long.
            self._long_s *= 0.95
        if self._most_used < self._limit / 2:
            return  # nobody was held back, so it says nothing about more
        gradient = min(1.0, max(0.5, TOLERANCE * self._long_s / max(short_s, 1e-9)))
        wanted = self._limit * gradient + ROOM
        limit = (1 - SMOOTHING) * self._limit + SMOOTHING * wanted
        self._limit = min(float(self.maximum), max(float(self.minimum), limit))

    def __repr__(self) -> str:
        return f"<Gradient {self.limit} of {self.minimum} to {self.maximum}>"
