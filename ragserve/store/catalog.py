"""Collections as this process knows them: one look-up each, then kept current by NOTIFY."""

from __future__ import annotations

import msgspec

from ragserve.store.collections import Collection, get_collection
from ragserve.store.pool import Database

KNOWN_COLLECTIONS = 10_000
"""The one unused for longest is forgotten and looked up again when it is asked for."""


class Catalog:
    """A bounded map from tenant and name to ``Collection``.

    Only collections that exist are kept, so that a new one is found at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_name: dict[tuple[str, str], Collection] = {}
        self._names: dict[int, tuple[str, str]] = {}

    async def get(self, tenant: str, name: str) -> Collection:
        """Return the collection; raise ``NotFound`` or ``Unavailable``."""
        key = (tenant, name)
        collection = self._by_name.pop(key, None)
        if collection is None:
            collection = await get_collection(self._database, tenant, name)
            self._names[collection.id] = key
        self._by_name[key] = collection  # last used is last
        while len(self._by_name) > KNOWN_COLLECTIONS:
            oldest = self._by_name.pop(next(iter(self._by_name)))
            del self._names[oldest.id]
        return collection

    def changed(self, payload: str) -> None:
        """Take a notification, ``<collection id> <version>``; -1 means deleted."""
        number, _, version = payload.partition(" ")
        key = self._names.get(int(number))
        if key is None:
            return
        if int(version) < 0:
            self._forget(int(number))
        else:
            known = self._by_name[key]
            if int(version) > known.version:
                self._by_name[key] = msgspec.structs.replace(known, version=int(version))

    async def reload(self) -> None:
        """Forget everything: notifications may have been missed."""
        self._by_name.clear()
        self._names.clear()

    def _forget(self, number: int) -> None:
        del self._by_name[self._names.pop(number)]

    def __repr__(self) -> str:
        return f"<Catalog {len(self._by_name)} collections>"
