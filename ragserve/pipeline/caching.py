"""Between question and computation: a kept answer, or one computation for all who ask the same.

Answers are kept in this process and, with Redis, for all workers and hosts, of which one computes
while the others wait for its answer.

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
from ragserve.cache.directives import ANY, forwarded, hit
from ragserve.cache.elsewhere import Elsewhere, Kept, Lease
from ragserve.errors import DeadlineExceeded, NotCached
from ragserve.flow.admission import Admission
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.flight import Flight, Flights, Publish
from ragserve.flow.principal import reader
from ragserve.generate import NO_CONVERSATION
from ragserve.metrics import CACHE_LOOKUPS, CACHE_REFRESHES, FLIGHTS
from ragserve.pipeline.events import Event
from ragserve.pipeline.paraphrases import Paraphrases
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
    """An answer: ``value`` if it was computed, ``entry`` if it is kept, one of them at least.

    ``tier`` is where one comes from that was not computed.
    """

    value: R | None
    entry: Entry | None
    tier: str = "memory"


Compute = Callable[[Asked, Context, Flight[Event, Any]], Coroutine[Any, Any, Made[R]]]
Flying = Flight[Event, Answered[R]]


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
        self._paraphrases = paraphrases
        self._answers = answers
        self._elsewhere = elsewhere
        self._compute = compute
        self._as_kept = as_kept
        self._timeout_s = timeout_s
        self._entrance = entrance
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
            return _hit("memory", entry, context, now)
        if wishes.read and key not in self._flights:
            entry = await self._kept_elsewhere(asked, key)
            now = time.monotonic()
            if entry is not None and wishes.accepts(entry.age_s(now)):
                return _hit("redis", entry, context, now)
        if wishes.only_cached:
            raise NotCached("Cache-Control: only-if-cached, and no answer is kept")
        answered = await self._fly_along(asked, key, context, wishes, hear)
        if answered.value is None and answered.entry is not None:
            now = time.monotonic()
            if not wishes.accepts(answered.entry.age_s(now)):
                return await self._fly_along(asked, key, context, wishes.anew(), hear)
            return _hit(answered.tier, answered.entry, context, now)
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

    async def _kept_elsewhere(self, asked: Asked, key: bytes) -> Entry | None:
        """Return what the second tier has, without computing anything."""
        if self._elsewhere is None:
            return None
        kept = await self._elsewhere.find(key)
        CACHE_LOOKUPS.labels("redis", "miss" if kept is None else "hit").inc()
        return None if kept is None else self._adopt(asked, key, kept, time.monotonic())

    async def _fly_along(
        self,
        asked: Asked,
        key: bytes,
        context: Context,
        wishes: Wishes,
        hear: Publish[Event] | None,
    ) -> Answered[R]:
        """Join the flight of ``key``, or start it; of those only whose wishes are like ours."""
        flight_key = key if wishes.read else (b"anew" if wishes.store else b"unkept") + key
        joined = flight_key in self._flights
        if not joined:
            context.may_spend()
            self._entrance.check(context.tenant, time.monotonic(), context.deadline)
        FLIGHTS.labels("joined" if joined else "started").inc()
        timings = {} if joined else context.timings

        def start(flight: Flying[R]) -> Coroutine[Any, Any, Answered[R]]:
            return self._fly(asked, key, flight, timings, wishes)

        context.cache = forwarded(wishes)  # before the first event: a stream's head goes out then
        with self._flights.join(flight_key, start, hear) as flight:
            answered = await _landing(flight, context)
        if joined:
            context.cache += "; collapsed"
        elif answered.entry is not None:
            context.cache += "; stored"
        return answered

    async def _fly(
        self,
        asked: Asked,
        key: bytes,
        flight: Flying[R],
        timings: dict[str, float],
        wishes: Wishes,
        newer_than: float = 0.0,
    ) -> Answered[R]:
        # Of its own: whoever started the flight may leave it, or have less time than others.
        deadline = deadline_after(self._timeout_s, time.monotonic())
        context = Context(reader(asked.collection.tenant), deadline)
        lease = None
        if self._elsewhere is not None and wishes.read:
            found = await self._elsewhere.find_or_lease(
                key, context.deadline.at, newer_than=newer_than
            )
            if isinstance(found, Kept):
                entry = self._adopt(asked, key, found, time.monotonic())
                return Answered(None, entry, "redis")
            lease = found
        try:
            if lease is None:
                return await self._make(asked, key, context, flight, wishes, None, newer_than)
            async with lease.held():
                return await self._make(asked, key, context, flight, wishes, lease, newer_than)
        finally:
            timings.update(context.timings)

    async def _make(
        self,
        asked: Asked,
        key: bytes,
        context: Context,
        flight: Flying[R],
        wishes: Wishes,
        lease: Lease | None,
        newer_than: float,
    ) -> Answered[R]:
        """Compute the answer, and keep it if that is right."""
        start = time.monotonic()
        paraphrases = self._paraphrases if _stands_alone(asked) else None
        if paraphrases is not None and wishes.read and not newer_than:
            similar = await paraphrases.find(asked, start)
            if similar is not None:
                return Answered(None, similar, "semantic")
        made = await self._compute(asked, context, flight)
        behind = made.version is not None and made.version < asked.collection.version
        now = time.monotonic()
        if not wishes.store or not made.whole or behind:
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
        if self._elsewhere is not None:
            self._elsewhere.keep_soon(key, lease, _as_sent(entry, now))
        if paraphrases is not None:
            await paraphrases.add(asked, key)
        kept = key in self._answers or lease is not None
        return Answered(made.value, entry if kept else None)

    def _adopt(self, asked: Asked, key: bytes, kept: Kept, now: float) -> Entry:
        """Keep an answer of the second tier here, with the times it has left."""
        age_s = max(0.0, time.time() - kept.computed_at)
        return self._answers.adopt(
            key,
            asked.collection,
            kept.body,
            now,
            fresh_s=kept.fresh_s - age_s,
            stale_s=kept.stale_s,
            cost_s=kept.cost_s,
            age_s=age_s,
        )

    def _refresh_soon(self, asked: Asked, entry: Entry, now: float) -> None:
        if len(self._refreshing) >= REFRESHES or entry.key in self._flights:
            return
        if self._entrance.refusal(entry.collection.tenant, now):
            return  # those who have nothing to read yet come first
        entry.postpone(now + self._timeout_s)
        task = asyncio.create_task(self._refresh(asked, entry))
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _refresh(self, asked: Asked, entry: Entry) -> None:
        """Replace a kept answer by a new one; let it stand if that fails."""
        key = entry.key
        # Half a second: clocks of hosts differ, and what is there may be this very answer.
        newer_than = time.time() - entry.age_s(time.monotonic()) + 0.5

        def start(flight: Flying[R]) -> Coroutine[Any, Any, Answered[R]]:
            return self._fly(asked, key, flight, {}, ANY, newer_than)

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

    def __repr__(self) -> str:
        return f"<Caching {self._flights!r}, {len(self._refreshing)} refreshing>"


def _hit(tier: str, entry: Entry, context: Context, now: float) -> Answered[Any]:
    context.cache = hit(tier, entry.fresh_until - now)
    context.age_s = int(entry.age_s(now))
    return Answered(None, entry, tier)


def _stands_alone(asked: Asked) -> bool:
    """Return whether the question's vector says what is asked: no conversation, no word search."""
    return asked.conversation == NO_CONVERSATION and asked.mode != "lexical"


def _as_sent(entry: Entry, now: float) -> Kept:
    return Kept(
        entry.prepared.body, time.time(), entry.fresh_until - now, entry.stale_s, entry.cost_s
    )


async def _landing(flight: Flying[R], context: Context) -> Answered[R]:
    try:
        async with asyncio.timeout_at(context.deadline.at):
            return await flight.result()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"answer: not ready within the request's {context.deadline.budget_s} s"
        ) from error
