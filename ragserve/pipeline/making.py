"""An answer on its way into the cache: found elsewhere, or computed by whoever has the lease.

An answer is kept only if it is whole and the search index was not behind the version of the
collection that the key names: what is kept is never older than its key says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ragserve.cache import Answers, Entry, Wishes
from ragserve.cache.elsewhere import Elsewhere, Kept, Lease
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.flight import Flight
from ragserve.flow.principal import reader
from ragserve.generate import NO_CONVERSATION
from ragserve.pipeline.events import Event
from ragserve.pipeline.paraphrases import Paraphrases
from ragserve.pipeline.question import Asked

R = TypeVar("R")


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


class Making(Generic[R]):
    """Makes answers of one kind. ``as_kept`` turns a computed one into what later askers get."""

    def __init__(
        self,
        answers: Answers,
        elsewhere: Elsewhere | None,
        compute: Compute[R],
        as_kept: Callable[[R], R],
        timeout_s: float,
        paraphrases: Paraphrases | None = None,
    ) -> None:
        self._answers = answers
        self._elsewhere = elsewhere
        self._compute = compute
        self._as_kept = as_kept
        self._timeout_s = timeout_s
        self._paraphrases = paraphrases

    async def fly(
        self,
        asked: Asked,
        key: bytes,
        flight: Flying[R],
        asker: Context | None,
        wishes: Wishes,
        newer_than: float = 0.0,
    ) -> Answered[R]:
        """Return the answer, computed unless somebody else has done so.

        ``asker`` is who starts the flight, unless nobody waits for it. Nothing computed before the
        Unix time ``newer_than`` will do.
        """
        # Of its own: whoever started the flight may leave it, or have less time than others.
        deadline = deadline_after(self._timeout_s, time.monotonic())
        context = Context(reader(asked.collection.tenant), deadline)
        if asker is not None:
            context.ahead_of(asker)
        lease = None
        if self._elsewhere is not None and wishes.read:
            found = await self._elsewhere.find_or_lease(
                key, context.deadline.at, newer_than=newer_than
            )
            if isinstance(found, Kept):
                entry = self.adopt(asked, key, found, time.monotonic())
                return Answered(None, entry, "redis")
            lease = found
        if lease is None:
            return await self._make(asked, key, context, flight, wishes, None, newer_than)
        async with lease.held():
            return await self._make(asked, key, context, flight, wishes, lease, newer_than)

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

    def adopt(self, asked: Asked, key: bytes, kept: Kept, now: float) -> Entry:
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


def _stands_alone(asked: Asked) -> bool:
    """Return whether the question's vector says what is asked: no conversation, no word search."""
    return asked.conversation == NO_CONVERSATION and asked.mode != "lexical"


def _as_sent(entry: Entry, now: float) -> Kept:
    return Kept(
        entry.prepared.body, time.time(), entry.fresh_until - now, entry.stale_s, entry.cost_s
    )
