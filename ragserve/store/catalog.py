"""Collections as this process knows them: one look-up each, then kept current by NOTIFY.

An answer may be given from memory only as long as the version it belongs to is known to be the
collection's. A notification cannot be told from silence, so what is known counts as current only
while the listening connection was seen alive within ``TRUST_S``; otherwise it is looked up again.
Without a database there is nothing newer to know: then the last known version stands.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from functools import partial

import msgspec

from ragserve.errors import NotFound, Unavailable
from ragserve.flow.flight import Flight, Flights
from ragserve.store.collections import Collection, get_collection
from ragserve.store.pool import Database

KNOWN_COLLECTIONS = 10_000
"""The one learned of first is forgotten and looked up again when it is asked for."""
TRUST_S = 0.9
"""How long after a sign of life a silent connection may have missed something: below the second
within which a change is known everywhere."""
RECHECK_S = 0.5
"""While nothing can be heard, a collection is looked up this often at most."""
LOOKUP_S = 0.5
"""A database that does not answer in time is as good as none, for what is known already."""


class _Known(msgspec.Struct):
    """``checked_at`` is when it was last read, ``tried_at`` when that was last tried."""

    collection: Collection
    checked_at: float
    tried_at: float


class Catalog:
    """A bounded map from tenant and name to ``Collection``.

    Only collections that exist are kept, so that a new one is found at once. Times are monotonic
    seconds.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._names: dict[int, tuple[str, str]] = {}
        self._lookups: Flights[tuple[str, str], None, Collection] = Flights()
        self._looking_up = 0
        self._news: dict[int, int] = {}
        self._heard_at = self._listening_since = float("-inf")

    async def get(self, tenant: str, name: str) -> Collection:
        """Return the collection; raise ``NotFound`` or ``Unavailable``."""
        now = time.monotonic()
        collection = self.current(tenant, name, now)
        if collection is not None:
            return collection
        key = (tenant, name)
        with self._lookups.join(key, partial(self._look_up, key)) as flight:
            return await flight.result()

    def current(self, tenant: str, name: str, now: float) -> Collection | None:
        """Return the collection if it is known to be current."""
        known = self._known.get((tenant, name))
        if known is None:
            return None
        if now - known.tried_at <= RECHECK_S:
            return known.collection
        if known.checked_at >= self._listening_since and now - self._heard_at <= TRUST_S:
            return known.collection
        return None

    def changed(self, payload: str) -> None:
        """Take a notification, ``<collection id> <version>``; -1 means deleted."""
        number, version = (int(part) for part in payload.split(" "))
        if self._looking_up:
            # A look-up under way may have read what was there before.
            self._news[number] = version
        key = self._names.get(number)
        if key is None:
            return
        if version < 0:
            self._forget(key)
        else:
            known = self._known[key]
            known.collection = _at_least(known.collection, version)

    def doubt(self, collection: Collection) -> None:
        """Look it up at the next question: this process has just changed it.

        The notification will come, but whoever made the change may ask sooner.
        """
        known = self._known.get((collection.tenant, collection.name))
        if known is not None:
            known.checked_at = known.tried_at = float("-inf")

    def heard(self, at: float) -> None:
        """Take note that everything committed before ``at`` has been notified."""
        self._heard_at = max(self._heard_at, at)

    async def reload(self) -> None:
        """Trust nothing that was known before: notifications may have been missed."""
        self._heard_at = self._listening_since = time.monotonic()

    async def _look_up(self, key: tuple[str, str], _flight: Flight[None, Collection]) -> Collection:
        start = time.monotonic()
        self._looking_up += 1
        try:
            async with asyncio.timeout(LOOKUP_S if key in self._known else None):
                collection = await get_collection(self._database, *key)
            version = self._news.get(collection.id, 0)
        except NotFound:
            self._forget(key)
            raise
        except (Unavailable, TimeoutError):
            known = self._known.get(key)
            if known is None:
                raise
            known.tried_at = time.monotonic()  # as good as it gets; not at every question
            return known.collection
        finally:
            self._looking_up -= 1
            if not self._looking_up:
                self._news.clear()
        if version < 0:
            raise NotFound(f"collection {key[1]!r} does not exist", param="collection")
        collection = _at_least(collection, version)
        self._learn(key, _Known(collection, start, start))
        return collection

    def _learn(self, key: tuple[str, str], known: _Known) -> None:
        self._forget(key)
        self._known[key] = known
        self._names[known.collection.id] = key
        while len(self._known) > KNOWN_COLLECTIONS:
            self._forget(next(iter(self._known)))

    def _forget(self, key: tuple[str, str]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            del self._names[known.collection.id]

    def __repr__(self) -> str:
        return f"<Catalog {len(self._known)} collections>"


def _at_least(collection: Collection, version: int) -> Collection:
    if version <= collection.version:
        return collection
    return msgspec.structs.replace(collection, version=version)
