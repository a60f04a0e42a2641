"""Between question and computation: a kept answer, or one computation for all who ask the same.

Answers are kept in this process and, with Redis, for all workers and hosts, of which one computes
while the others wait for its answer.

A stale answer is given at once and computed anew behind it; if that fails, it is given until its
end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ragserve.cache import Answers, Entry, Wishes
from ragserve.cache.directives import ANY, forwarded, hit
from ragserve.cache.elsewhere import Elsewhere
from ragserve.errors import DeadlineExceeded, NotCached
from ragserve.flow.admission import Admission
from ragserve.flow.context import Context
from ragserve.flow.flight import Flights, Publish
from ragserve.metrics import CACHE_LOOKUPS, FLIGHTS
from ragserve.pipeline.events import Event, Transcript
from ragserve.pipeline.making import Answered, Compute, Flying, Making
from ragserve.pipeline.paraphrases import Paraphrases
from ragserve.pipeline.question import Asked
from ragserve.pipeline.refreshing import Refreshing

R = TypeVar("R")


class Caching(Generic[R]):
    """Answers of one kind. ``as_kept`` turns a computed one into the JSON that later ones get."""

    def __init__(
        self,
        answers: Answers,
        elsewhere: Elsewhere | None,
        compute: Compute[R],
        as_kept: Callable[[R], R],
        timeout_s: float,
        entrance: Admission,
        paraphrases: Paraphrases | None = None,
    ) -> None:
        self._answers = answers
        self._elsewhere = elsewhere
        self._entrance = entrance
        self._making = Making(answers, elsewhere, compute, as_kept, timeout_s, paraphrases)
        self._flights: Flights[bytes, Event, Answered[R]] = Flights(Transcript)

        def anew(
            asked: Asked, key: bytes, flight: Flying[R], newer_than: float
        ) -> Coroutine[Any, Any, Answered[R]]:
            return self._making.fly(asked, key, flight, None, ANY, newer_than)

        self._refreshing = Refreshing(self._flights, anew, entrance, timeout_s)

    async def ask(
        self,
        asked: Asked,
        key: bytes,
        context: Context,
        wishes: Wishes,
        hear: Publish[Event] | None = None,
    ) -> Answered[R]:
        """Return the answer; one that is computed is heard while it comes about."""
        now = time.monotonic()
        let_in = self._entrance.has_let_in(context.tenant, now)
        entry = self._kept(asked, key, wishes, now)
        if entry is not None:
            return _hit("memory", entry, context, now)
        if wishes.read and key not in self._flights:
            entry = await self._kept_elsewhere(asked, key)
            now = time.monotonic()
            if entry is not None and wishes.accepts(entry.age_s(now)):
                return _hit("redis", entry, context, now)
        if wishes.only_cached:
            raise NotCached("Cache-Control: only-if-cached, and no answer is kept")
        answered = await self._fly_along(asked, key, context, wishes, hear, let_in=let_in)
        if answered.value is None and answered.entry is not None:
            now = time.monotonic()
            if not wishes.accepts(answered.entry.age_s(now)):
                return await self._fly_along(asked, key, context, wishes.anew(), hear)
            return _hit(answered.tier, answered.entry, context, now)
        return answered

    async def close(self) -> None:
        """Give up refreshing."""
        await self._refreshing.close()

    def _kept(self, asked: Asked, key: bytes, wishes: Wishes, now: float) -> Entry | None:
        if not wishes.read:
            return None
        entry = self._answers.get(key, now)
        if entry is None:
            return None
        if self._answers.is_due(entry, now):
            self._refreshing.soon(asked, entry, now)
        return entry if wishes.accepts(entry.age_s(now)) else None

    async def _kept_elsewhere(self, asked: Asked, key: bytes) -> Entry | None:
        """Return what the second tier has, without computing anything."""
        if self._elsewhere is None:
            return None
        kept = await self._elsewhere.find(key)
        CACHE_LOOKUPS.labels("redis", "miss" if kept is None else "hit").inc()
        return None if kept is None else self._making.adopt(asked, key, kept, time.monotonic())

    async def _fly_along(
        self,
        asked: Asked,
        key: bytes,
        context: Context,
        wishes: Wishes,
        hear: Publish[Event] | None,
        *,
        let_in: bool = False,
    ) -> Answered[R]:
        """Join the flight of ``key``, or start it; of those only whose wishes are like ours."""
        flight_key = key if wishes.read else (b"anew" if wishes.store else b"unkept") + key
        joined = flight_key in self._flights
        if not joined:
            context.may_spend()
            now = time.monotonic()
            self._entrance.check(context.tenant, now, context.deadline, let_in=let_in)
        FLIGHTS.labels("joined" if joined else "started").inc()

        def start(flight: Flying[R]) -> Coroutine[Any, Any, Answered[R]]:
            return self._making.fly(asked, key, flight, context, wishes)

        context.cache = forwarded(wishes)  # before the first event: a stream's head goes out then
        with self._flights.join(flight_key, start, hear) as flight:
            answered = await _landing(flight, context)
        if joined:
            context.cache += "; collapsed"
        elif answered.entry is not None:
            context.cache += "; stored"
        return answered

    def __repr__(self) -> str:
        return f"<Caching {self._flights!r}, {len(self._refreshing)} refreshing>"


def _hit(tier: str, entry: Entry, context: Context, now: float) -> Answered[Any]:
    context.cache = hit(tier, entry.fresh_until - now)
    context.age_s = int(entry.age_s(now))
    return Answered(None, entry, tier)


async def _landing(flight: Flying[R], context: Context) -> Answered[R]:
    try:
        async with asyncio.timeout_at(context.deadline.at):
            return await flight.result()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"answer: not ready within the request's {context.deadline.budget_s} s"
        ) from error
