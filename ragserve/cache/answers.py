"""The first tier: ready answers in memory. Synchronous, no I/O; times are monotonic seconds.

An answer is found by its key, or at once by the exact body of a request that led to it. The first
way is safe by the key, which has the collection's version in it. A body has no version, so the
second way holds only while the collection is known to be still at the answer's version.

An answer is *fresh* for its time to live, which differs at random so that what was computed
together is not computed again together. Then it is *stale*: still given for a while, if somebody
computes it anew meanwhile. The more an answer cost the earlier before its end one of its readers
is picked, at random, to have it refreshed (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal
Probabilistic Cache Stampede Prevention", 2015).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from ragserve.cache.directives import HIT
from ragserve.cache.local import LocalCache
from ragserve.cache.prepared import Prepared, prepare
from ragserve.config import CacheConfig
from ragserve.metrics import CACHE_BYTES, CACHE_LOOKUPS, KEPT_ASIDE
from ragserve.store.collections import Collection

JITTER = 0.1
"""Lifetimes differ by this share at random."""
EAGERNESS = 20.0
"""No draw makes XFetch refresh earlier than this many times the cost: e^-20 is never drawn."""
BODIES_SHARE = 0.2
"""Of the memory, for finding answers by bodies; a body is shorter than its answer."""
ENTRY_BYTES = 1000
"""What an answer takes besides its bytes: objects, dictionary slots, numbers."""
BODY_BYTES = 600
"""What a body takes besides its bytes."""

Current = Callable[[str, str, float], Collection | None]
"""Gives a tenant's collection by name as it is at a time, if that is known for sure."""


class Entry:
    """A kept answer of ``collection`` at its version; ``cost_s`` is what computing it took."""

    __slots__ = ("_early_from", "collection", "cost_s", "fresh_until", "key", "prepared", "stale_s")

    def __init__(
        self,
        key: bytes,
        collection: Collection,
        prepared: Prepared,
        fresh_until: float,
        stale_s: float,
        cost_s: float,
    ) -> None:
        self.key = key
        self.collection = collection
        self.prepared = prepared
        self.fresh_until = fresh_until
        self.stale_s = stale_s
        self.cost_s = cost_s
        self._early_from = fresh_until - EAGERNESS * cost_s

    def age_s(self, now: float) -> float:
        """Return how long ago it was computed."""
        stored_at = self.prepared.stored_at
        return 0.0 if stored_at is None else max(0.0, now - stored_at)

    def is_due(self, now: float, draw: float) -> bool:
        """Return whether this reader should have it refreshed; ``draw`` is random in (0, 1]."""
        return now >= self._early_from and now - self.cost_s * math.log(draw) >= self.fresh_until

    def postpone(self, until: float) -> None:
        """Do not ask for a refresh before ``until``: one is under way, or failed."""
        self._early_from = until


class Answers:
    """A bounded set of entries; ``current`` is what decides whether they are still true."""

    def __init__(
        self, config: CacheConfig, current: Current, rng: random.Random | None = None
    ) -> None:
        self._config = config
        self._current = current
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        bodies = int(config.memory_bytes * BODIES_SHARE)
        self._entries: LocalCache[bytes, Entry] = LocalCache(config.memory_bytes - bodies)
        self._bodies: LocalCache[tuple[str, bytes, bytes], bytes] = LocalCache(bodies)
        self._express_hits = 0
        KEPT_ASIDE.add(self)

    @property
    def size_bytes(self) -> int:
        """Return the memory in use, as it is counted."""
        return self._entries.size_bytes + self._bodies.size_bytes

    def get(self, key: bytes, now: float) -> Entry | None:
        """Return the answer, fresh or stale."""
        entry = self._entries.get(key, now)
        CACHE_LOOKUPS.labels("memory", _result(entry, now)).inc()
        return entry

    def peek(self, key: bytes, now: float) -> Entry | None:
        """Return the answer without counting the look-up."""
        return self._entries.get(key, now)

    def is_due(self, entry: Entry, now: float) -> bool:
        """Return whether the reader of ``entry`` should have it refreshed."""
        return entry.is_due(now, 1.0 - self._rng.random())

    def put(
        self,
        key: bytes,
        collection: Collection,
        body: bytes,
        now: float,
        *,
        cost_s: float = 0.0,
        negative: bool = False,
    ) -> Entry:
        """Keep an answer computed just now; a ``negative`` one, "nothing found", only shortly."""
        ttl_s = self._config.negative_ttl_s if negative else self._config.ttl_s
        ttl_s *= 1.0 - JITTER * self._rng.random()
        # A short-lived answer must not be due from its first moment.
        cost_s = min(cost_s, ttl_s / (2 * EAGERNESS))
        stale_s = 0.0 if negative else self._config.stale_s
        return self.adopt(key, collection, body, now, fresh_s=ttl_s, stale_s=stale_s, cost_s=cost_s)

    def adopt(
        self,
        key: bytes,
        collection: Collection,
        body: bytes,
        now: float,
        *,
        fresh_s: float,
        stale_s: float,
        cost_s: float,
        age_s: float = 0.0,
    ) -> Entry:
        """Keep an answer with the times it has left; ``fresh_s`` below 0 means stale already."""
        headers = {"Content-Type": "application/json", "Cache-Status": HIT}
        prepared = prepare(200, headers, body, stored_at=now - age_s)
        fresh_until = now + fresh_s
        entry = Entry(key, collection, prepared, fresh_until, stale_s, cost_s)
        size = len(body) + len(prepared.head) + ENTRY_BYTES
        self._entries.put(key, entry, size, expires_at=fresh_until + stale_s)
        self._measure()
        return entry

    def is_outdated(self, collection: Collection, now: float) -> bool:
        """Return whether ``collection`` is known to have changed since."""
        current = self._current(collection.tenant, collection.name, now)
        return current is not None and not _same(current, collection)

    def note_body(self, path: str, body: bytes, entry: Entry) -> None:
        """Let ``try_prepared`` find ``entry`` by the exact ``body`` of a request to ``path``."""
        alias = (entry.collection.tenant, path.encode(), body)
        self._bodies.put(alias, entry.key, len(body) + BODY_BYTES)
        self._measure()

    def try_prepared(self, tenant: str, path: bytes, body: bytes, now: float) -> Prepared | None:
        """Return the answer to exactly this body, if it is in memory and still true.

        What is stale or due to be refreshed is left to those who can say so and do so.
        """
        alias = (tenant, path, body)
        key = self._bodies.get(alias, now)
        if key is None:
            return None
        entry = self._entries.get(key, now)
        if entry is None:
            return None
        kept = entry.collection
        current = self._current(tenant, kept.name, now)
        if current is not kept and not _same(current, kept):
            if current is not None:
                self._bodies.discard(alias)
            return None
        if now >= entry.fresh_until or self.is_due(entry, now):
            return None
        self._express_hits += 1
        return entry.prepared

    def forget(self, tenant: str, collection: int | None = None) -> None:
        """Drop a tenant's answers, those of one collection or all."""
        for key, entry in self._entries.items():
            kept = entry.collection
            if kept.tenant == tenant and collection in (None, kept.id):
                self._entries.discard(key)
        self._measure()

    def fold(self) -> None:
        """Count the hits of the express lane."""
        CACHE_LOOKUPS.labels("memory", "hit").inc(self._express_hits)
        self._express_hits = 0

    def _measure(self) -> None:
        CACHE_BYTES.labels("memory").set(self.size_bytes)

    def __contains__(self, key: bytes) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Answers {self._entries!r}, {len(self._bodies)} bodies>"


def _result(entry: Entry | None, now: float) -> str:
    if entry is None:
        return "miss"
    return "hit" if now < entry.fresh_until else "stale"


def _same(one: Collection | None, other: Collection) -> bool:
    return one is not None and (one.id, one.born, one.version) == (
        other.id,
        other.born,
        other.version,
    )
