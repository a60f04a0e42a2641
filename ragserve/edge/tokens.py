"""Tokens of the language model a minute: counted when an answer is there, so paid afterwards.

Who has used up a minute's tokens waits until one is there again. What is under way when that
happens is finished: the limit can be passed by that much, and by what a worker does not know yet
of the others, which it learns with each answer of its own.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict

from ragserve.edge.quota import IDENTITIES
from ragserve.errors import TooManyRequests, Unavailable
from ragserve.flow.bucket import Buckets, Rate
from ragserve.metrics import rate_limited
from ragserve.store.shares import Shares


class TokenQuota:
    """``per_minute`` tokens for each identity. Times are monotonic seconds."""

    def __init__(self, name: str, per_minute: int, workers: int, shares: Shares | None) -> None:
        self.name = name
        self._per_minute = per_minute
        self._rate = Rate.per_minute(per_minute)
        self._shares = shares
        self._local = Buckets(Rate.per_minute(per_minute / workers), IDENTITIES)
        self._blocked: OrderedDict[str, float] = OrderedDict()
        self._refused = rate_limited(name)

    def check(self, identity: str, now: float) -> None:
        """Raise ``TooManyRequests`` if nothing is left."""
        until = self._blocked.get(identity)
        if until is None:
            return
        if now >= until:
            del self._blocked[identity]
            return
        self._refused.inc()
        raise TooManyRequests(
            f"{self.name}: {self._per_minute} tokens a minute are allowed;"
            f" try again in {until - now:.1f} s",
            retry_after_s=until - now,
        )

    async def charge(self, identity: str, tokens: int, now: float) -> None:
        """Count tokens that an answer has taken."""
        wait_s = self._local.charge(identity, now, tokens)
        if self._shares is not None and self._shares.reachable:
            with contextlib.suppress(Unavailable):  # the worker's own count stands then
                wait_s = await self._shares.charge(f"{self.name}:{identity}", self._rate, tokens)
        if wait_s <= 0:
            return
        self._blocked.pop(identity, None)
        self._blocked[identity] = now + wait_s
        if len(self._blocked) > IDENTITIES:
            del self._blocked[next(iter(self._blocked))]

    def __repr__(self) -> str:
        return f"<TokenQuota {self.name}: {self._per_minute} a minute>"
