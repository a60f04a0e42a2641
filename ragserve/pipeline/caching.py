"""Between question and computation: a kept answer, or one computation for all who ask the same.

A stale answer is given at once and computed anew behind it; if that fails, it is given until its
end. An answer is kept only if it is whole and the search index was not behind the version of the
collection that the key names: what is kept is never older than its key says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec
import structlog

from ragserve.cache import Answers, Entry, Wishes
from ragserve.cache.directives import forwarded, hit
from ragserve.errors import DeadlineExceeded, NotCached
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.flight import Flight, Flights, Publish
from ragserve.metrics import CACHE_REFRESHES, FLIGHTS
from ragserve.pipeline.events import Event
from ragserve.pipeline.question import Asked

log = structlog.get_logger(__name__)

R = TypeVar("R")

REFRESHES = 4
"""Answers computed anew in the background at once; they must not crowd out who waits."""
RETRY_S = 5.0
"""After a failed refresh the next reader tries again this much later."""


class Made(NamedTuple, Generic[R]):
    """A computed answer. ``version`` is the oldest its passages can be of, None for the newest."""

    value: R
    whole: bool
    negative: bool
    version: int | None


class Answered(NamedTuple, Generic[R]):
    """An answer: ``value`` if it was computed, ``entry`` if it is kept, one of them at least."""

    value: R | None
    entry: Entry | None


Compute = Callable[[Asked, Context, Flight[Event, Any]], Coroutine[Any, Any, Made[R]]]
Flying = Flight[Event, Answered[R]]


class Caching(Generic[R]):
    """Answers of one kind. ``as_kept`` turns a computed one into the JSON that later ones get."""

    def __init__(
        self,
        answers: Answers,
        compute: Compute[R],
        as_kept: Callable[[R], R],
        timeout_s: float,
    ) -> None:
        self._answers = answers
        self._compute = compute
        self._as_kept = as_kept
        self._timeout_s = timeout_s
        self._flights: Flights[bytes, Event, Answered[R]] = Flights()
        self._refreshing: set[asyncio.Task[None]] = set()

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
        entry = self._kept(asked, key, wishes, now)
        if entry is not None:
            age_s = entry.age_s(now)
            context.cache = hit("memory", entry.fresh_until - now)
            context.age_s = int(age_s)
            return Answered(None, entry)
        if wishes.only_cached:
            raise NotCached("Cache-Control: only-if-cached, and no answer is kept")
        context.cache = forwarded(wishes)
        if not wishes.store:
            key = b"unkept" + key  # in no company that would keep it
        joined = key in self._flights
        FLIGHTS.labels("joined" if joined else "started").inc()
        timings = {} if joined else context.timings
        with self._flights.join(
            key, lambda flight: self._fly(asked, key, flight, timings, keep=wishes.store), hear
        ) as flight:
            answered = await _landing(flight, context)
        if joined:
            context.cache += "; collapsed"
        elif answered.entry is not None:
            context.cache += "; stored"
        return answered

    async def close(self) -> None:
        """Give up refreshing."""
        for task in tuple(self._refreshing):
            task.cancel()
        await asyncio.gather(*self._refreshing, return_exceptions=True)

    def _kept(self, asked: Asked, key: bytes, wishes: Wishes, now: float) -> Entry | None:
        if not wishes.read:
            return None
        entry = self._answers.get(key, now)
        if entry is None:
            return None
        if self._answers.is_due(entry, now):
            self._refresh_soon(asked, entry, now)
        return entry if wishes.accepts(entry.age_s(now)) else None

    async def _fly(
        self, asked: Asked, key: bytes, flight: Flying[R], timings: dict[str, float], *, keep: bool
    ) -> Answered[R]:
        # Of its own: whoever started the flight may leave it, or have less time than others.
        start = time.monotonic()
        context = Context(asked.collection.tenant, deadline_after(self._timeout_s, start))
        try:
            made = await self._compute(asked, context, flight)
        finally:
            timings.update(context.timings)
        behind = made.version is not None and made.version < asked.collection.version
        now = time.monotonic()
        if not keep or not made.whole or behind:
            return Answered(made.value, None)
        if self._answers.is_outdated(asked.collection, now):
            return Answered(made.value, None)  # nobody would find it
        entry = self._answers.put(
            key,
            asked.collection,
            msgspec.json.encode(self._as_kept(made.value)),
            now,
            cost_s=now - start,
            negative=made.negative,
        )
        return Answered(made.value, entry if key in self._answers else None)

    def _refresh_soon(self, asked: Asked, entry: Entry, now: float) -> None:
        if len(self._refreshing) >= REFRESHES or entry.key in self._flights:
            return
        entry.postpone(now + self._timeout_s)
        task = asyncio.create_task(self._refresh(asked, entry))
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _refresh(self, asked: Asked, entry: Entry) -> None:
        """Replace a kept answer by a new one; let it stand if that fails."""
        key = entry.key
        try:
            with self._flights.join(
                key, lambda flight: self._fly(asked, key, flight, {}, keep=True)
            ) as flight:
                await flight.result()
        except Exception as error:  # noqa: BLE001 - nobody waits for it; the old answer stands
            CACHE_REFRESHES.labels("failed").inc()
            log.warning("refresh_failed", error=str(error), kind=type(error).__name__)
        else:
            CACHE_REFRESHES.labels("done").inc()
        # If it was replaced, this is nobody's any more.
        entry.postpone(time.monotonic() + RETRY_S)

    def __repr__(self) -> str:
        return f"<Caching {self._flights!r}, {len(self._refreshing)} refreshing>"


async def _landing(flight: Flying[R], context: Context) -> Answered[R]:
    try:
        async with asyncio.timeout_at(context.deadline.at):
            return await flight.result()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"answer: not ready within the request's {context.deadline.budget_s} s"
        ) from error
