"""A circuit breaker: what fails again and again is left alone for a while. Pure.

Closed, everything passes. After so many failures in a row it opens and nothing passes until
``retry_at``; then one trial may, and its outcome closes the breaker or opens it for longer. A
trial that never tells its outcome is followed by another one after the shortest pause.

Several processes that call the same thing take turns at trials by what they share, ``Trials``.
"""

from __future__ import annotations

import random
from typing import Literal, Protocol


class Trials(Protocol):
    """Who may try again what several have given up: one of them at a time."""

    def try_begin(self, now: float) -> bool:
        """Return whether the trial is the caller's; if so, it is until it is told the outcome."""

    def worked(self) -> None:
        """Tell the others that it works again."""

    def failed(self, retry_at: float) -> None:
        """Tell the others not to try before ``retry_at``."""

    def give_back(self) -> None:
        """Let another one try: there was no outcome."""

    def successes(self) -> int:
        """Return a number that changes whenever one of them has found that it works."""


class Alone:
    """``Trials`` of one that shares nothing."""

    def try_begin(self, now: float) -> bool:
        """Let it try."""
        return True

    def worked(self) -> None:
        """Tell nobody."""

    def failed(self, retry_at: float) -> None:
        """Tell nobody."""

    def give_back(self) -> None:
        """Nobody else tries."""

    def successes(self) -> int:
        """Nobody else finds anything."""
        return 0


class Breaker:
    """Times are monotonic seconds."""

    def __init__(
        self,
        *,
        failures: int = 3,
        base_s: float = 0.5,
        cap_s: float = 10.0,
        rng: random.Random | None = None,
        trials: Trials | None = None,
    ) -> None:
        self.retry_at = 0.0
        self._trials = trials or Alone()
        self._successes = 0
        self._limit = failures
        self._base_s = base_s
        self._cap_s = cap_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._failures = 0
        self._openings = 0
        self._trial = False

    @property
    def state(self) -> Literal["closed", "open", "trial"]:
        """Return whether calls pass, do not, or wait for the outcome of one."""
        if not self._openings:
            return "closed"
        return "trial" if self._trial else "open"

    def try_pass(self, now: float) -> bool:
        """Return whether a call may be made now; if so, tell its outcome."""
        if not self._openings:
            return True
        if now < self.retry_at and self._trials.successes() == self._successes:
            return False
        if not self._trials.try_begin(now):
            return False
        self._successes = self._trials.successes()
        self._trial = True
        self.retry_at = now + self._base_s
        return True

    def abandoned(self) -> None:
        """Take note that a call has ended without telling anything."""
        if self._trial:
            self._trial = False
            self._trials.give_back()

    def succeeded(self) -> None:
        """Take note that a call worked."""
        if self._openings:
            self._trials.worked()
        self._failures = 0
        self._openings = 0
        self._trial = False

    def failed(self, now: float) -> None:
        """Take note that a call failed; calls that began before it opened change nothing."""
        self._failures += 1
        if self._openings:
            if self._trial:
                self._open(now)
                self._trials.failed(self.retry_at)
        elif self._failures >= self._limit:
            self._open(now)

    def trip(self, now: float) -> None:
        """Open at once: the caller knows better."""
        self._failures = max(self._failures, self._limit)
        self._open(now)

    def _open(self, now: float) -> None:
        # Half of the pause is fixed, half is jitter: many processes see the same failure at once.
        pause_s = min(self._cap_s, self._base_s * 2.0**self._openings)
        self.retry_at = now + pause_s * (0.5 + 0.5 * self._rng.random())
        self._openings += 1
        self._trial = False
        self._successes = self._trials.successes()

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self._failures} failures in a row>"
