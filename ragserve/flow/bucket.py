"""Token buckets by the generic cell rate algorithm (ITU-T I.371): one number for each. Pure.

That number is the time at which the bucket is full again. A request that costs one token moves it
by the time that a token takes to come; it may pass while it stays within the time that the whole
bucket takes. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

_ROUNDING_S = 1e-9
"""What adding and subtracting times may be off by."""


class Rate(NamedTuple):
    """A token every ``interval_s``, ``burst`` of them at most."""

    interval_s: float
    burst: float

    @classmethod
    def per_minute(cls, tokens: float, burst: float | None = None) -> Rate:
        """Return a rate; unless given, the bucket holds a minute's tokens."""
        return cls(60.0 / tokens, tokens if burst is None else burst)

    @property
    def span_s(self) -> float:
        """Return how long an empty bucket takes to fill."""
        return self.interval_s * self.burst

    def take(self, full_at: float, now: float, tokens: float = 1.0) -> tuple[float, float]:
        """Return when the bucket is full then, and 0; or as before, and how long to wait."""
        full_then = max(full_at, now) + tokens * self.interval_s
        wait_s = full_then - now - self.span_s
        return (full_then, 0.0) if wait_s <= _ROUNDING_S else (full_at, wait_s)

    def left(self, full_at: float, now: float) -> float:
        """Return how many tokens are in the bucket."""
        return self.burst - max(0.0, full_at - now) / self.interval_s


class Decision(NamedTuple):
    """A request that may pass, with the lines of a head that say what is left."""

    headers: bytes = b""

    @property
    def fields(self) -> dict[str, str]:
        """Return the lines' names and values."""
        lines = self.headers.decode("ascii").split("\r\n")[:-1]
        return {name: value for name, _, value in (line.partition(": ") for line in lines)}


class Buckets:
    """A bucket for each identity, at most ``bound``: the one used longest ago starts anew."""

    def __init__(self, rate: Rate, bound: int) -> None:
        self.rate = rate
        self._bound = bound
        # Not a dict, whose first entry is found only behind all those that were removed before it:
        # with 100,000 identities and new ones all the time that took a tenth of a millisecond.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, identity: str, now: float, tokens: float = 1.0) -> float:
        """Take tokens and return 0, or take none and return how many seconds to wait."""
        full_at, wait_s = self.rate.take(self._full_at.pop(identity, now), now, tokens)
        self._full_at[identity] = full_at
        if len(self._full_at) > self._bound:
            del self._full_at[next(iter(self._full_at))]
        return wait_s

    def try_take(self, identity: str, now: float) -> float:
        """Take a token and return how many are left; take none, return -1 if there is none."""
        interval_s, burst = self.rate
        buckets = self._full_at
        full_at = buckets.pop(identity, now)
        if full_at < now:
            full_at = now
        left = burst - 1.0 - (full_at - now) / interval_s
        if left < 0.0:
            if left * interval_s < -_ROUNDING_S:
                buckets[identity] = full_at
                return -1.0
            left = 0.0
        buckets[identity] = full_at + interval_s
        if len(buckets) > self._bound:
            del buckets[next(iter(buckets))]
        return left

    def charge(self, identity: str, now: float, tokens: float) -> float:
        """Take tokens whether or not they are there; return seconds until there is one."""
        interval_s, burst = self.rate
        full_at = max(self._full_at.pop(identity, now), now) + tokens * interval_s
        self._full_at[identity] = full_at
        if len(self._full_at) > self._bound:
            del self._full_at[next(iter(self._full_at))]
        return max(0.0, full_at - now - (burst - 1.0) * interval_s)

    def give_back(self, identity: str) -> None:
        """Return a token that was taken in vain."""
        if identity in self._full_at:
            self._full_at[identity] -= self.rate.interval_s

    def wait_s(self, identity: str, now: float) -> float:
        """Return how long to wait for a token; take none. Who has to wait is not forgotten."""
        full_at = self._full_at.get(identity)
        if full_at is None:
            return 0.0
        wait_s = self.rate.take(full_at, now)[1]
        if wait_s > 0:
            self._full_at[identity] = self._full_at.pop(identity)
        return wait_s

    def left(self, identity: str, now: float) -> float:
        """Return how many tokens an identity has."""
        return self.rate.left(self._full_at.get(identity, now), now)

    def __len__(self) -> int:
        return len(self._full_at)

    def __repr__(self) -> str:
        return f"<Buckets {len(self)} of at most {self._bound}>"
