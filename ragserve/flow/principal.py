"""Who asks: a tenant's key, or nobody in particular."""

from __future__ import annotations

import hashlib
import time
from typing import Final, get_args

import msgspec

from ragserve.errors import Forbidden, NotFound
from ragserve.schema import KeyLimits, Scope

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
DEFAULT_TENANT: Final = "default"


class Principal(msgspec.Struct, frozen=True):
    """What a key allows. ``id`` is "" without a key; ``collections`` None means all.

    ``expires_at`` is in seconds since 1970; ``limits`` None means those of everybody.
    """

    id: str
    tenant: str
    scopes: frozenset[Scope]
    collections: frozenset[str] | None = None
    expires_at: float = float("inf")
    limits: KeyLimits | None = None

    def expired(self) -> bool:
        """Return whether the key's time is over."""
        return time.time() >= self.expires_at

    def require(self, scope: Scope) -> None:
        """Raise ``Forbidden`` unless this scope is granted."""
        if scope not in self.scopes:
            who = f"key {self.id}" if self.id else "a request without a key"
            granted = ", ".join(one for one in SCOPES if one in self.scopes) or "none"
            raise Forbidden(f"{who} may not do this: it needs scope {scope!r}, it has {granted}")

    def sees(self, collection: str) -> bool:
        """Return whether a collection exists for this principal, if it does for its tenant."""
        return self.collections is None or collection in self.collections

    def check_collection(self, name: str) -> None:
        """Raise what a collection that does not exist raises."""
        if not self.sees(name):
            raise NotFound(f"collection {name!r} does not exist", param="collection")


def credential_of(authorization: bytes | None) -> bytes | None:
    """Return what stands for an ``Authorization`` header: a look-up's time tells nothing of it."""
    return None if authorization is None else hashlib.sha256(authorization).digest()


def reader(tenant: str) -> Principal:
    """Return somebody who may ask the documents of ``tenant``."""
    return Principal("", tenant, frozenset[Scope](["query"]))


OWNER: Final = Principal("", DEFAULT_TENANT, frozenset(SCOPES))
"""Whoever runs commands on this host, or asks over loopback while there are no keys."""
READER: Final = reader(DEFAULT_TENANT)
"""Anybody, where `auth.allow_anonymous` lets anybody ask beside those who have keys."""
