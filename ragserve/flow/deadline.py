"""A request's deadline: one absolute, monotonic moment that every stage respects."""

from __future__ import annotations

import msgspec

from ragserve.errors import DeadlineExceeded


class Deadline(msgspec.Struct, frozen=True):
    """``at`` is a time of the event loop's clock, in seconds; ``budget_s`` what it began with."""

    at: float
    budget_s: float

    def remaining_s(self, now: float) -> float:
        """Return what is left, never negative."""
        return max(0.0, self.at - now)

    def within(self, seconds: float, now: float) -> Deadline:
        """Return a deadline ``seconds`` from now, or this one if it is earlier."""
        return self if self.at <= now + seconds else Deadline(now + seconds, seconds)

    def check(self, now: float, stage: str) -> None:
        """Raise ``DeadlineExceeded`` if nothing is left to begin ``stage`` with."""
        if now >= self.at:
            raise DeadlineExceeded(f"{stage}: the request's {self.budget_s} s are used up")


def deadline_after(budget_s: float, now: float) -> Deadline:
    """Return the deadline of a request that may take ``budget_s`` seconds from ``now``."""
    return Deadline(now + budget_s, budget_s)
