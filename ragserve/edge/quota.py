"""One limit: so many requests a minute for each identity of a kind, in one class of routes.

With Redis the buckets are those of all workers and hosts: a worker takes a few tokens at a time
and gives out of its hand, without asking. Without, or while it is away, each worker has a bucket of
its own with its share of the rate. Redis failing never fails a request.
"""

from __future__ import annotations

import asyncio
import math

from ragserve.errors import TooManyRequests, Unavailable
from ragserve.flow.bucket import Buckets, Decision, Rate
from ragserve.metrics import RATE_LIMITED
from ragserve.store.shares import Shares

IDENTITIES = 100_000
"""Who asked longest ago is forgotten, and starts with a full bucket of its worker's."""
DECISIONS = 10_000
"""Heads are the same for the same number of tokens left."""
LEASE_S = 0.1
"""A lease is what comes in this time, shared among the host's workers, or a single token."""


class Hand:
    """Tokens that a worker has taken for an identity, and what was left in Redis then."""

    __slots__ = ("left", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.left = 0


class Quota:
    """``per_minute`` requests for each identity. Times are monotonic seconds."""

    def __init__(self, name: str, per_minute: int, workers: int, shares: Shares | None) -> None:
        self.name = name
        self._per_minute = per_minute
        self._rate = Rate.per_minute(per_minute)
        self._shares = shares
        self._lease = max(1, round(per_minute / 60 * LEASE_S / workers))
        self._local = Buckets(Rate.per_minute(per_minute / workers), IDENTITIES)
        self._hands: dict[str, Hand] = {}
        self._asking: dict[str, asyncio.Task[float]] = {}
        self._decisions: dict[int, Decision] = {}
        self._policy = f'"{name}";q={per_minute};w=60'

    def try_take(self, identity: str, now: float) -> float:
        """Take a token and return how many are left; -1, and none taken, if that takes waiting."""
        if self._shares is None or not self._shares.reachable:
            return self._local.try_take(identity, now)
        hand = self._hands.get(identity)
        if hand is None or hand.tokens == 0:
            return -1.0
        hand.tokens -= 1
        return float(hand.left + hand.tokens)

    async def take(self, identity: str, now: float) -> float:
        """Take a token and return how many are left; raise ``TooManyRequests``."""
        left = self.try_take(identity, now)
        if left >= 0:
            return left
        while self._shares is not None and self._shares.reachable:
            asking = self._asking.get(identity)
            if asking is None:
                asking = asyncio.create_task(self._fill(identity, self._shares))
                self._asking[identity] = asking
            try:
                # Whoever leaves must not take the others' tokens along.
                wait_s = await asyncio.shield(asking)
            except Unavailable:
                break
            left = self.try_take(identity, now)
            if left >= 0:
                return left
            if wait_s > 0:
                raise self._refusal(wait_s)
        left = self._local.try_take(identity, now)
        if left < 0:
            raise self._refusal(self._local.wait_s(identity, now))
        return left

    def give_back(self, identity: str) -> None:
        """Return a token: the request may not pass for another limit."""
        if self._shares is None or not self._shares.reachable:
            self._local.give_back(identity)
        elif identity in self._hands:
            self._hands[identity].tokens += 1

    def decision(self, left: float) -> Decision:
        """Return that a request may pass while so many tokens are left."""
        whole = max(0, int(left))
        known = self._decisions.get(whole)
        if known is not None:
            return known
        if len(self._decisions) >= DECISIONS:
            self._decisions.clear()
        reset_s = math.ceil((self._per_minute - whole) * self._rate.interval_s)
        fields = (
            ("RateLimit-Policy", self._policy),
            ("RateLimit", f'"{self.name}";r={whole};t={reset_s}'),
            ("x-ratelimit-limit-requests", str(self._per_minute)),
            ("x-ratelimit-remaining-requests", str(whole)),
            ("x-ratelimit-reset-requests", f"{reset_s}s"),
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        decision = self._decisions[whole] = Decision(fields, lines.encode())
        return decision

    async def close(self) -> None:
        """Give back what is in hand: another worker may need it."""
        shares = self._shares
        if shares is None:
            return
        returned = [
            shares.take(f"{self.name}:{identity}", self._rate, -hand.tokens)
            for identity, hand in self._hands.items()
            if hand.tokens
        ]
        await asyncio.gather(*returned, return_exceptions=True)

    def _refusal(self, wait_s: float) -> TooManyRequests:
        RATE_LIMITED.labels(self.name).inc()
        return TooManyRequests(
            f"{self.name}: {self._per_minute} requests a minute are allowed;"
            f" try again in {wait_s:.1f} s",
            retry_after_s=wait_s,
        )

    async def _fill(self, identity: str, shares: Shares) -> float:
        """Take a hand of tokens; return how long to wait if there is none."""
        try:
            lease = await shares.take(f"{self.name}:{identity}", self._rate, self._lease)
        finally:
            del self._asking[identity]
        hand = self._hands.pop(identity, None) or Hand()
        self._hands[identity] = hand
        hand.tokens += lease.tokens
        hand.left = lease.left
        if len(self._hands) > IDENTITIES:
            del self._hands[next(iter(self._hands))]
        return lease.wait_s

    def __repr__(self) -> str:
        return f"<Quota {self.name}: {self._per_minute} a minute>"
