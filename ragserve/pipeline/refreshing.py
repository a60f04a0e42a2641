"""Kept answers computed anew, behind those who read them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import structlog

from ragserve.cache import Entry
from ragserve.flow.admission import Admission
from ragserve.flow.flight import Flights
from ragserve.metrics import CACHE_REFRESHES
from ragserve.pipeline.events import Event
from ragserve.pipeline.making import Answered, Flying
from ragserve.pipeline.question import Asked

log = structlog.get_logger(__name__)

R = TypeVar("R")

REFRESHES = 4
"""Answers computed anew in the background at once; they must not crowd out who waits."""
RETRY_S = 5.0
"""After a failed refresh the next reader tries again this much later."""

Fly = Callable[[Asked, bytes, Flying[R], float], Coroutine[Any, Any, Answered[R]]]
"""Computes an answer newer than a Unix time."""


class Refreshing(Generic[R]):
    """What is being computed anew, in ``flights`` that others may join."""

    def __init__(
        self,
        flights: Flights[bytes, Event, Answered[R]],
        fly: Fly[R],
        entrance: Admission,
        timeout_s: float,
    ) -> None:
        self._flights = flights
        self._fly = fly
        self._entrance = entrance
        self._timeout_s = timeout_s
        self._under_way: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Give up."""
        for task in tuple(self._under_way):
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def soon(self, asked: Asked, entry: Entry, now: float) -> None:
        """Have ``entry`` replaced, unless that is under way or the worker has no time for it."""
        if len(self._under_way) >= REFRESHES or entry.key in self._flights:
            return
        if self._entrance.refusal(entry.collection.tenant, now):
            return  # those who have nothing to read yet come first
        entry.postpone(now + self._timeout_s)
        task = asyncio.create_task(self._refresh(asked, entry))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _refresh(self, asked: Asked, entry: Entry) -> None:
        """Replace a kept answer by a new one; let it stand if that fails."""
        key = entry.key
        # Half a second: clocks of hosts differ, and what is there may be this very answer.
        newer_than = time.time() - entry.age_s(time.monotonic()) + 0.5

        def start(flight: Flying[R]) -> Coroutine[Any, Any, Answered[R]]:
            return self._fly(asked, key, flight, newer_than)

        try:
            with self._flights.join(key, start) as flight:
                await flight.result()
        except Exception as error:  # noqa: BLE001 - nobody waits for it; the old answer stands
            CACHE_REFRESHES.labels("failed").inc()
            log.warning("refresh_failed", error=str(error), kind=type(error).__name__)
        else:
            CACHE_REFRESHES.labels("done").inc()
        # If it was replaced, this is nobody's any more.
        entry.postpone(time.monotonic() + RETRY_S)

    def __len__(self) -> int:
        return len(self._under_way)

    def __repr__(self) -> str:
        return f"<Refreshing {len(self)} answers>"
