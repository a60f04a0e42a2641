"""Servers that answer the same calls: one is chosen, and another one if it fails.

Those of the lowest priority number come first, in a random order that follows their weights; a
server whose breaker is open is left out. What may pass (no connection, a timeout, 429, 5xx) is
tried at the next server at once, or at the only one after a jittered pause, or the one that it asks
for, as far as the budget of retries goes. So does a hedge: a second attempt beside a slow one.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from ragserve.flow.backoff import backoff_s
from ragserve.flow.breaker import Breaker, Trials
from ragserve.flow.budget import RetryBudget
from ragserve.flow.recent import Recent
from ragserve.metrics import UPSTREAM_HEDGES, UPSTREAM_OPEN
from ragserve.upstream.failure import CallFailed
from ragserve.upstream.hedge import PERCENT, Floor, Speak
from ragserve.upstream.server import Server

R = TypeVar("R")

PAUSE_S = 0.1
"""The first pause is up to so long, the next ones up to twice the one before."""
LONGEST_PAUSE_S = 5.0
"""A server that asks for more is not waited for."""

Use = Callable[[Server, Speak], Awaitable[R]]
"""One attempt at a call: it says ``Speak`` before it passes anything on."""


class Member:
    """A server, its share among those of its priority, and whether it works.

    ``trials`` are shared with those who call the same server elsewhere on this host.
    """

    def __init__(
        self,
        server: Server,
        *,
        weight: float = 1.0,
        priority: int = 0,
        trials: Trials | None = None,
    ) -> None:
        self.server = server
        self.weight = weight
        self.priority = priority
        self.breaker = Breaker(trials=trials)
        UPSTREAM_OPEN.labels(server.what, server.origin.url, server.model).set_function(
            lambda: self.breaker.state != "closed"
        )

    async def attempt(self, use: Use[R], floor: Floor) -> R:
        """Make one call, and take note of how it went."""
        try:
            with floor.attempt() as speak:
                reply = await use(self.server, speak)
        except CallFailed as error:
            self._note(error, time.monotonic())
            raise
        except BaseException:
            self.breaker.abandoned()
            raise
        self.breaker.succeeded()
        return reply

    def _note(self, error: CallFailed, now: float) -> None:
        """Take note of a failure; a refusal or a limit is an answer."""
        if error.kind == "outrun":
            self.breaker.abandoned()
        elif error.kind in ("refused", "throttled"):
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
        self._first_words = Recent()
        self._rng = random.Random()  # noqa: S311 - jitter and shares

    async def post(self, path: str, body: object) -> bytes:
        """Return the reply to ``body`` sent as JSON; raise ``CallFailed``."""
        content = msgspec.json.encode(body)
        return await self.call(lambda server, _: server.post(path, content))

    async def call(
        self,
        use: Use[R],
        *,
        hedged: bool = False,
        among: Callable[[Server], bool] = lambda _: True,
    ) -> R:
        """Return what ``use`` returns; a failure is final once an attempt has spoken.

        ``hedged``: a slow attempt gets company; ``among`` says which servers may be asked.
        """
        self._budget.earn(time.monotonic())
        floor = Floor(self._first_words)
        left = in_order([one for one in self.members if among(one.server)], self._rng)
        failure: CallFailed | None = None
        for attempt in range(1, self._attempts + 1):
            if not left or (failure is not None and not self._budget.try_spend()):
                break
            member = _next(left, time.monotonic())
            if member is None:
                break
            left.remove(member)
            try:
                delay_s = self._first_words.percentile(PERCENT) if hedged else None
                if delay_s is None:
                    return await member.attempt(use, floor)
                return await self._race(member, left, use, floor, delay_s)
            except CallFailed as error:
                failure = error
            if floor.taken:
                break
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

    async def _race(
        self, first: Member, left: list[Member], use: Use[R], floor: Floor, delay_s: float
    ) -> R:
        """Call ``first``; if it has not spoken after ``delay_s``, another one beside it.

        That is one of ``left``, which loses it, or the same server if there is no other.
        """
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(first.attempt(use, floor))]
        racing = set(tasks)
        hedge_at: float | None = loop.time() + delay_s
        failure: CallFailed | None = None
        try:
            while racing:
                timeout = None if hedge_at is None else max(0.0, hedge_at - loop.time())
                done, racing = await asyncio.wait(
                    racing, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    hedge_at = None
                    second = None if floor.taken else self._company(first, left)
                    if second is not None:
                        tasks.append(asyncio.create_task(second.attempt(use, floor)))
                        racing.add(tasks[-1])
                for task in done:
                    if task.cancelled():
                        continue  # outrun
                    error = task.exception()
                    if error is None:
                        if len(tasks) > 1:
                            UPSTREAM_HEDGES.labels("lost" if task is tasks[0] else "won").inc()
                        return task.result()
                    if not isinstance(error, CallFailed):
                        raise error
                    hedge_at = None  # it is not slow, it has failed: that is for retries
                    if failure is None or error.kind != "outrun":
                        failure = error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert failure is not None  # noqa: S101 - only those that are outrun are cancelled
        raise failure

    def _company(self, first: Member, left: list[Member]) -> Member | None:
        """Return who is to be asked beside ``first``, if anybody is and the budget allows it."""
        now = time.monotonic()
        if not self._budget.try_spend():
            return None
        other = _next(left, now)
        if other is not None:
            left.remove(other)
            return other
        return first if not left and first.breaker.try_pass(now) else None

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
