"""One limit: so many requests a minute for each identity of a kind, in one class of routes.

With Redis the buckets are those of all workers and hosts: a worker takes a few tokens at a time
and gives out of its hand, without asking. While Redis is away a worker gives out its share of what
it last knew to be left, and tells Redis afterwards: neither an outage nor a restart fills a bucket.
Without Redis each worker has a bucket of its own with its share of the rate. Redis failing never
fails a request.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable

from ragserve.errors import TooManyRequests, Unavailable
from ragserve.flow.bucket import Buckets, Decision, Rate
from ragserve.metrics import rate_limited
from ragserve.store.shares import Known, Lease, Shares

IDENTITIES = 100_000
"""Who asked longest ago is forgotten, and starts with a full bucket of its worker's."""
DECISIONS = 10_000
"""Heads are the same for the same number of tokens left."""
REFUSALS = 1_000
"""And refusals for the same tenth of a second to wait."""
LEASE_S = 0.1
"""A lease is what comes in this time, shared among all workers, or a single token."""
_LONG_AGO = float("-inf")


class Exhausted(TooManyRequests):
    """No token is left. ``decision`` tells the client so."""

    def __init__(self, message: str, wait_s: float, decision: Decision) -> None:
        super().__init__(message, retry_after_s=wait_s)
        self.decision = decision


class Hand:
    """What a worker knows of an identity's bucket in Redis, and the tokens it has taken from it.

    ``full_at`` is when that bucket, ``born`` at some time, is full, and ``left`` how many tokens
    were in it, as Redis last said. While Redis is away ``share_full_at`` is when the worker's share
    is full, and ``owed`` counts what was given out of that.
    """

    __slots__ = ("born", "full_at", "left", "owed", "share_full_at", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.left = 0
        self.born = ""
        self.full_at = _LONG_AGO
        self.share_full_at = _LONG_AGO
        self.owed = 0


class Quota:
    """``per_minute`` requests for each identity. Times are monotonic seconds.

    ``workers`` are all that share the limit.
    """

    try_take: Callable[[str, float], float]
    """Takes a token of an identity at a time and returns how many are left; takes none and returns
    -1 if that takes waiting."""

    def __init__(self, name: str, per_minute: int, workers: int, shares: Shares | None) -> None:
        self.name = name
        self._per_minute = per_minute
        self._rate = Rate.per_minute(per_minute)
        # Whoever has less than a token a minute may still have one at once.
        self._share = Rate.per_minute(per_minute / workers, max(1.0, per_minute / workers))
        self._shares = shares
        self._lease = max(1, round(per_minute / 60 * LEASE_S / workers))
        self._local = Buckets(self._share, IDENTITIES)
        self._hands: OrderedDict[str, Hand] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Lease]] = {}
        self._decisions: dict[int, Decision] = {}
        self._refusals: dict[int, Exhausted] = {}
        self._policy = f'RateLimit-Policy: "{name}";q={per_minute};w=60\r\nRateLimit: "{name}";r='
        self._refused = rate_limited(name)
        # Every request comes by here, and one call is less than two.
        self.try_take = self._local.try_take if shares is None else self._try_take_hand

    def _try_take_hand(self, identity: str, now: float) -> float:
        """Do what ``try_take`` does with tokens that Redis has given."""
        hand = self._hands.get(identity)
        if hand is not None and hand.tokens > 0:
            hand.tokens -= 1
            return float(hand.left + hand.tokens)
        if self._shares is not None and self._shares.reachable:
            return -1.0
        return self._try_take_share(identity, now)

    def try_refuse(self, identity: str, now: float) -> Exhausted | None:
        """Return why a request cannot pass, which is counted; None if it may, or who knows.

        It is not to be raised: who has to wait as long is told the same.
        """
        wait_s = self._known_wait_s(identity, now)
        if wait_s <= 0:
            return None
        self._refused.inc()
        tenths = math.ceil(wait_s * 10)
        refusal = self._refusals.get(tenths)
        if refusal is None:
            if len(self._refusals) >= REFUSALS:
                self._refusals.clear()
            refusal = self._refusals[tenths] = self._exhausted(tenths)
        return refusal

    async def take(self, identity: str, now: float) -> float:
        """Take a token and return how many are left; raise ``Exhausted``."""
        left = self.try_take(identity, now)
        if left >= 0:
            return left
        if self._shares is None:
            raise self._refusal(self._local.wait_s(identity, now))
        while self._shares.reachable:
            if (wait_s := self._known_wait_s(identity, now)) > 0:
                raise self._refusal(wait_s)
            asking = self._asking.get(identity)
            if asking is None:
                asking = asyncio.create_task(self._fill(identity, self._shares, now))
                self._asking[identity] = asking
            try:
                # Whoever leaves must not take the others' tokens along.
                lease = await asyncio.shield(asking)
            except Unavailable:
                break
            left = self.try_take(identity, now)
            if left >= 0:
                return left
            if lease.wait_s > 0:
                raise self._refusal(lease.wait_s)
        left = self._try_take_share(identity, now)
        if left < 0:
            hand = self._hands[identity]
            raise self._refusal(self._share.take(hand.share_full_at, now)[1])
        return left

    def give_back(self, identity: str) -> None:
        """Return a token: the request may not pass for another limit."""
        if self._shares is None:
            self._local.give_back(identity)
        elif (hand := self._hands.get(identity)) is not None:
            if self._shares.reachable:
                hand.tokens += 1
            else:
                hand.share_full_at -= self._share.interval_s
                hand.owed -= 1

    def decision(self, left: float) -> Decision:
        """Return that a request may pass while so many tokens are left."""
        whole = int(left)
        known = self._decisions.get(whole)
        if known is not None:
            return known
        if len(self._decisions) >= DECISIONS:
            self._decisions.clear()
        reset_s = math.ceil((self._per_minute - whole) * self._rate.interval_s)
        lines = (
            f"{self._policy}{whole};t={reset_s}\r\n"
            f"x-ratelimit-limit-requests: {self._per_minute}\r\n"
            f"x-ratelimit-remaining-requests: {whole}\r\n"
            f"x-ratelimit-reset-requests: {reset_s}s\r\n"
        )
        decision = self._decisions[whole] = Decision(lines.encode())
        return decision

    async def close(self) -> None:
        """Give back what is in hand: another worker may need it."""
        shares = self._shares
        if shares is None:
            return
        returned = [
            shares.take(f"{self.name}:{identity}", self._rate, hand.owed - hand.tokens)
            for identity, hand in self._hands.items()
            if hand.owed != hand.tokens
        ]
        await asyncio.gather(*returned, return_exceptions=True)

    def _refusal(self, wait_s: float) -> Exhausted:
        self._refused.inc()
        return self._exhausted(math.ceil(wait_s * 10))

    def _exhausted(self, tenths: int) -> Exhausted:
        wait_s = tenths / 10
        return Exhausted(
            f"{self.name}: {self._per_minute} requests a minute are allowed;"
            f" try again in {wait_s:.1f} s",
            wait_s,
            self.decision(0.0),
        )

    def _known_wait_s(self, identity: str, now: float) -> float:
        """Return how long there can be no token, as far as this worker knows."""
        if self._shares is None:
            return self._local.wait_s(identity, now)
        hand = self._hands.get(identity)
        if hand is None or hand.tokens > 0:
            return 0.0
        if self._shares.reachable:
            # Nobody but Redis adds tokens, and only as time goes by.
            return self._rate.take(hand.full_at, now)[1]
        return self._share.take(max(hand.share_full_at, hand.full_at), now)[1]

    def _try_take_share(self, identity: str, now: float) -> float:
        """Take a token of the worker's share of what was left; -1 if there is none."""
        hand = self._hand(identity)
        # A share of a bucket is full when the bucket is.
        hand.share_full_at = max(hand.share_full_at, hand.full_at)
        hand.share_full_at, wait_s = self._share.take(hand.share_full_at, now)
        if wait_s > 0:
            return -1.0
        hand.owed += 1
        return max(0.0, self._share.left(hand.share_full_at, now))

    async def _fill(self, identity: str, shares: Shares, now: float) -> Lease:
        """Take a hand of tokens; tell what Redis may not know."""
        hand = self._hand(identity)
        known, owed = Known(hand.born, max(0.0, hand.full_at - now)), hand.owed
        try:
            lease = await shares.take(
                f"{self.name}:{identity}", self._rate, self._lease, known, owed
            )
        finally:
            del self._asking[identity]
        hand.owed -= owed
        hand.tokens += lease.tokens
        hand.left = lease.left
        hand.born = lease.bucket.born
        hand.full_at = now + lease.bucket.full_in_s
        return lease

    def _hand(self, identity: str) -> Hand:
        """Return the hand of an identity, which counts as used just now."""
        hand = self._hands.pop(identity, None) or Hand()
        self._hands[identity] = hand
        if len(self._hands) > IDENTITIES:
            del self._hands[next(iter(self._hands))]
        return hand

    def __repr__(self) -> str:
        return f"<Quota {self.name}: {self._per_minute} a minute>"
