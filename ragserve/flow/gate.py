"""Permits of a stage: so many requests at once as do it good, the others wait, fairly and briefly.

A request that would wait too long is refused before it begins (``expected_wait_s`` tells). A short
burst may wait longer than a queue that never empties: waiting cures the one and not the other
(after Nichols, Jacobson, "Controlling Queue Delay", 2012). The more of a tenant's requests are
refused the shorter its queue gets: as many are answered, only sooner.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragserve.errors import DeadlineExceeded, Overloaded
from ragserve.flow.bounded import Bounded
from ragserve.flow.deadline import Deadline
from ragserve.flow.fair import FairQueue
from ragserve.flow.gradient import Gradient

STANDING_S = 0.1
"""A queue that has not been empty for so long is no burst."""
FIRST = 50
"""Calls before anything is known: the first ones find everything cold."""
UNKNOWN = 4 * FIRST
"""So many may wait meanwhile. A server that starts into a flood would let all of it in."""
SHORTEST = 0.25
"""Of a standing queue's wait this much is left to a tenant most of whose requests are refused."""
REFUSING_S = 2.0
"""Over this time that share is averaged. Were it shorter than the wait, patience would fall faster
than a queue drains, and swing."""
GIVEN_UP = 3
"""Who has waited for so many times ``burst_s`` is refused: the newest come first by then, and it
would only be told at its deadline."""
REFUSED_TENANTS = 10_000
STEP = 1.05
"""The estimate of the median moves by this factor with each call."""


class Permit:
    """The right to be in a stage. ``observed_s`` replaces the time spent there, if it is set.

    Unless it ``tells``, that time says nothing of how busy the stage is.
    """

    __slots__ = ("observed_s", "tells")

    def __init__(self) -> None:
        self.observed_s: float | None = None
        self.tells = True


class _Refused:
    """Of a tenant's requests, averaged over time: the share that was refused."""

    __slots__ = ("seen_at", "share")

    def __init__(self, now: float) -> None:
        self.seen_at = now
        self.share = 0.0

    def note(self, now: float, *, refused: bool) -> None:
        weight = min(1.0, (now - self.seen_at) / REFUSING_S)
        self.share += weight * (refused - self.share)
        self.seen_at = now


class _Waiter:
    __slots__ = ("deadline", "future", "since", "tenant")

    def __init__(self, tenant: str, deadline: Deadline, since: float) -> None:
        self.tenant = tenant
        self.deadline = deadline
        self.since = since
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Gate:
    """One stage's permits. ``burst_s`` and ``standing_s``: how long a request may wait for one.

    Who comes to a gate ``within`` another stage holds a permit of that one and has cost something:
    there the oldest always comes first. To let it wait for newer ones would throw its work away.
    """

    def __init__(
        self, name: str, limit: Gradient, *, burst_s: float, standing_s: float, within: bool = False
    ) -> None:
        self.name = name
        self.limit = limit
        self.used = 0
        self.typical_s = 0.0
        self._mean_s = 0.0
        self._calls = 0
        self._burst_s = burst_s
        self._standing_s = standing_s
        self._within = within
        self._queue: FairQueue[_Waiter] = FairQueue()
        self._refused: Bounded[str, _Refused] = Bounded(REFUSED_TENANTS)
        self._busy_since = float("inf")

    @property
    def waiting(self) -> int:
        """Return how many wait."""
        return len(self._queue)

    def expected_wait_s(self, tenant: str, entering: int = 0) -> float:
        """Return how long a request of ``tenant`` would wait, if all went on as it goes.

        So many more of the tenant's are about to come before it.
        """
        free = max(0, self.limit.limit - self.used)
        if entering < free and not self._queue:
            return 0.0
        rank = max(1, self._queue.rank(tenant) + entering + 1 - free)
        if self._calls < FIRST:
            return 0.0 if rank <= UNKNOWN else self._burst_s * rank / UNKNOWN
        return rank * self._mean_s / max(1, self.limit.limit)

    def is_too_long(self, wait_s: float, tenant: str, now: float) -> bool:
        """Return whether a request of ``tenant`` should rather be refused, and note that."""
        refused = self._refused.get(tenant)
        too_long = wait_s > self._patience_s(refused, now)
        if refused is not None:
            refused.note(now, refused=too_long)
        elif too_long:
            self._refused[tenant] = _Refused(now)
        return too_long

    def _patience_s(self, refused: _Refused | None, now: float) -> float:
        if now - self._busy_since <= STANDING_S:
            return self._burst_s
        if refused is None:
            return self._standing_s
        return self._standing_s * max(SHORTEST, 1.0 - refused.share)

    @asynccontextmanager
    async def permit(self, tenant: str, deadline: Deadline, cost: int = 1) -> AsyncIterator[Permit]:
        """Wait for a permit and hold it; raise ``DeadlineExceeded`` if it would come too late.

        Raise ``Overloaded`` if newer ones came first for too long.
        """
        if self.used >= self.limit.limit or self._queue:
            await self._wait(tenant, deadline, cost)
        else:
            self.used += 1
        permit = Permit()
        start = time.monotonic()
        try:
            yield permit
            now = time.monotonic()
            taken_s = now - start
            self._learn(taken_s, typical=permit.tells)
            if permit.tells:
                observed_s = taken_s if permit.observed_s is None else permit.observed_s
                self.limit.observe(observed_s, self.used, now)
        finally:
            self.used -= 1
            self._admit()

    async def _wait(self, tenant: str, deadline: Deadline, cost: int) -> None:
        now = time.monotonic()
        waiter = _Waiter(tenant, deadline, now)
        if not self._queue:
            self._busy_since = now
        self._queue.push(tenant, waiter, cost)
        try:
            async with asyncio.timeout_at(deadline.at):
                await waiter.future
        except TimeoutError as error:
            self._leave(waiter)
            raise self._too_late(deadline) from error
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: _Waiter) -> None:
        if waiter.future.done() and not waiter.future.cancelled() and not waiter.future.exception():
            self.used -= 1  # the permit had come just then
            self._admit()
        else:
            waiter.future.cancel()
            self._queue.discard(waiter.tenant, waiter)
            self._note_empty()

    def _admit(self) -> None:
        """Give free permits to those who wait."""
        now = time.monotonic()
        self._give_up(now)
        while self._queue and self.used < self.limit.limit:
            waiter = self._queue.pop(newest=self._is_old(now))
            if waiter.future.done():
                continue
            if waiter.deadline.remaining_s(now) < self.typical_s:
                waiter.future.set_exception(self._too_late(waiter.deadline))
                continue
            self.used += 1
            waiter.future.set_result(None)
        self._note_empty()

    def _give_up(self, now: float) -> None:
        """Refuse who has waited for too long, of the line whose turn it is."""
        while self._is_old(now, GIVEN_UP) and (oldest := self._queue.oldest()) is not None:
            self._queue.discard(oldest.tenant, oldest)
            if not oldest.future.done():
                waited_s = now - oldest.since
                text = f"{self.name}: no permit in {waited_s:.1f} s, newer requests come first"
                oldest.future.set_exception(Overloaded(text, retry_after_s=self._burst_s))

    def _is_old(self, now: float, times: int = 1) -> bool:
        """Return whether the oldest has waited so long that it has mostly given up.

        Who has just come has not.
        """
        oldest = None if self._within else self._queue.oldest()
        return oldest is not None and now - oldest.since > times * self._burst_s

    def _note_empty(self) -> None:
        if not self._queue:
            self._busy_since = float("inf")
            self._refused.clear()

    def _learn(self, seconds: float, *, typical: bool) -> None:
        self._calls += 1
        self._mean_s += max(0.02, 1 / self._calls) * (seconds - self._mean_s)
        if typical:
            self.typical_s = self.typical_s or seconds
            self.typical_s *= STEP if seconds > self.typical_s else 1 / STEP

    def _too_late(self, deadline: Deadline) -> DeadlineExceeded:
        return DeadlineExceeded(
            f"{self.name}: no permit within the request's {deadline.budget_s} s"
            f" ({self.used} of {self.limit.limit} in use, {self.waiting} waiting)"
        )

    def __repr__(self) -> str:
        return f"<Gate {self.name}: {self.used} of {self.limit.limit}, {self.waiting} waiting>"
