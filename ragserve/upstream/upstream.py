"""Servers that answer the same calls: one is chosen, and another one if it fails.

Those of the lowest priority number come first, in a random order that follows their weights; a
server whose breaker is open is left out. What may pass (no connection, a timeout, 429, 5xx) is
tried at the next server at once, or at the only one after a jittered pause, or the one that it asks
for, as far as the budget of retries goes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from ragserve.flow.backoff import backoff_s
from ragserve.flow.breaker import Breaker
from ragserve.flow.budget import RetryBudget
from ragserve.metrics import UPSTREAM_OPEN
from ragserve.upstream.failure import CallFailed
from ragserve.upstream.server import Server

PAUSE_S = 0.1
"""The first pause is up to so long, the next ones up to twice the one before."""
LONGEST_PAUSE_S = 5.0
"""A server that asks for more is not waited for."""


class Member:
    """A server, its share among those of its priority, and whether it works."""

    def __init__(self, server: Server, *, weight: float = 1.0, priority: int = 0) -> None:
        self.server = server
        self.weight = weight
        self.priority = priority
        self.breaker = Breaker()
        UPSTREAM_OPEN.labels(server.what, server.origin.url, server.model).set_function(
            lambda: self.breaker.state != "closed"
        )

    def note(self, error: CallFailed, now: float) -> None:
        """Take note of a failure; a refusal or a limit is an answer."""
        if error.kind in ("refused", "throttled"):
            self.breaker.succeeded()
        else:
            self.breaker.failed(now)

    def __repr__(self) -> str:
        return f"<Member {self.server!r} {self.breaker!r}>"


class Upstream:
    """``members`` for one purpose; a call is made up to ``attempts`` times."""

    def __init__(self, members: Sequence[Member], *, attempts: int) -> None:
        self.members = list(members)
        self._attempts = attempts
        self._budget = RetryBudget()
        self._rng = random.Random()  # noqa: S311 - jitter and shares

    async def post(self, path: str, body: object) -> bytes:
        """Return the reply to ``body`` sent as JSON; raise ``CallFailed``."""
        content = msgspec.json.encode(body)
        return await self.call(lambda server: server.post(path, content))

    async def call(
        self,
        use: Callable[[Server], Awaitable[bytes]],
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> bytes:
        """Return what ``use`` returns; a failure is final unless ``may_repeat``."""
        self._budget.earn(time.monotonic())
        left = in_order(self.members, self._rng)
        failure: CallFailed | None = None
        for attempt in range(1, self._attempts + 1):
            member = _next(left, time.monotonic())
            if member is None or (failure is not None and not self._budget.try_spend()):
                break
            try:
                reply = await use(member.server)
            except CallFailed as error:
                failure = error
            else:
                member.breaker.succeeded()
                return reply
            member.note(failure, time.monotonic())
            if not may_repeat():
                break
            left.remove(member)
            pause_s = self._pause_s(attempt, failure)
            if pause_s is not None:
                if not left and attempt < self._attempts:
                    await asyncio.sleep(pause_s)
                left.append(member)
        what = self.members[0].server.what
        raise failure or CallFailed(f"{what}: left alone for a while after failures", "open")

    async def get(self, path: str) -> bytes:
        """Return the reply of the first server that has one, each tried once."""
        failure: CallFailed | None = None
        for member in sorted(self.members, key=lambda member: member.priority):
            try:
                return await member.server.get(path)
            except CallFailed as error:
                failure = failure or error
        assert failure is not None  # noqa: S101 - there is a member
        raise failure

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(member.server.close() for member in self.members))

    def _pause_s(self, attempt: int, error: CallFailed) -> float | None:
        """Return how long to leave the server alone; None for the rest of this call."""
        asked_s = error.retry_after_s or 0.0
        if not error.may_pass or asked_s > LONGEST_PAUSE_S:
            return None
        pause_s = backoff_s(attempt, base_s=PAUSE_S, cap_s=LONGEST_PAUSE_S, rng=self._rng)
        return asked_s + pause_s

    def __repr__(self) -> str:
        return f"<Upstream {self.members!r} {self._budget!r}>"


def in_order(members: Sequence[Member], rng: random.Random) -> list[Member]:
    """Return the members in the order in which one call tries them.

    The least of exponential variates with the weights as rates belongs to a member with the
    probability of its share (Efraimidis and Spirakis, 2006).
    """
    if len(members) == 1:
        return list(members)
    return sorted(members, key=lambda member: (member.priority, rng.expovariate(member.weight)))


def _next(left: Sequence[Member], now: float) -> Member | None:
    return next((member for member in left if member.breaker.try_pass(now)), None)
