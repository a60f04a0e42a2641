"""A budget of retries: they may help with what passes, and must not multiply what does not. Pure.

Each call earns a share of a retry, each second a little more, each retry costs one whole. When all
calls fail the load grows by that share and no further (SRE book, "Handling Overload").
"""

from __future__ import annotations


class RetryBudget:
    """Times are monotonic seconds; at most ``reserve`` retries are saved up."""

    def __init__(self, *, share: float = 0.1, per_s: float = 1.0, reserve: float = 10.0) -> None:
        self._share = share
        self._per_s = per_s
        self._reserve = reserve
        self._saved = reserve
        self._at: float | None = None

    def earn(self, now: float) -> None:
        """Take note of a call."""
        elapsed_s = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._saved = min(self._reserve, self._saved + self._share + elapsed_s * self._per_s)

    def try_spend(self) -> bool:
        """Return whether one more retry may be made, and count it."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._saved:.1f} left>"
