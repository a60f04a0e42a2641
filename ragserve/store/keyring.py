"""Whose request is it: keys that were looked up before are known without asking anybody.

A key costs PostgreSQL one look-up, when a worker first sees it. Changes are notified; what is known
counts as current only while the listening connection was seen alive within ``TRUST_S``, and is
looked up again otherwise: a revoked key is refused everywhere within a second. While the database
is away nothing can be revoked either, and known keys stay good.

Without any key, clients on this machine may do everything and others nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

import msgspec
import structlog

from ragserve.config import AuthConfig
from ragserve.errors import TooManyRequests, Unauthorized, Unavailable
from ragserve.flow.address import identity_of, is_loopback
from ragserve.flow.bucket import Buckets, Rate
from ragserve.flow.principal import OWNER, READER, Principal, credential_of
from ragserve.metrics import AUTH_FAILURES
from ragserve.store.catalog import LOOKUP_S, RECHECK_S, TRUST_S
from ragserve.store.keys import Refused, any_keys, find_token
from ragserve.store.pool import Database

log = structlog.get_logger("ragserve.audit")

KNOWN_KEYS = 20_000
"""The one seen first is forgotten, and looked up again when it comes back."""
WATCHED_ADDRESSES = 100_000
_NEVER = float("-inf")


class _Known(msgspec.Struct):
    """``checked_at`` is when it was last read, ``tried_at`` when that was last tried."""

    principal: Principal
    checked_at: float
    tried_at: float


class Keyring:
    """Credentials to principals. Times are monotonic seconds."""

    def __init__(self, database: Database, config: AuthConfig) -> None:
        self._database = database
        self._anonymous = config.allow_anonymous
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._any_keys = True
        self._any_checked_at = self._any_tried_at = _NEVER
        self._heard_at = self._listening_since = _NEVER
        self._changes = 0
        self._failures = Buckets(Rate.per_minute(config.failures_per_minute), WATCHED_ADDRESSES)

    def try_known(self, credential: bytes | None, address: str, now: float) -> Principal | None:
        """Return whose credential it is, None if that takes waiting or is refused."""
        if not self._current(self._any_checked_at, self._any_tried_at, now):
            return None
        if not self._any_keys:
            return OWNER if self._anonymous or is_loopback(address) else None
        if credential is None:
            return READER if self._anonymous else None
        known = self._known.get(credential)
        if known is None or not self._current(known.checked_at, known.tried_at, now):
            return None
        return None if known.principal.expired() else known.principal

    def try_authenticate(self, authorization: str | None, address: str) -> Principal | None:
        """Return whose ``Authorization`` it is, None if that takes waiting or is refused."""
        return self.try_known(_credential(authorization), address, time.monotonic())

    async def authenticate(self, authorization: str | None, address: str) -> Principal:
        """Return whose credential it is.

        Raises ``Unauthorized``; ``TooManyRequests`` for an address that has guessed too often;
        ``Unavailable`` if the key has to be looked up and cannot be.
        """
        credential = _credential(authorization)
        now = time.monotonic()
        principal = self.try_known(credential, address, now)
        if principal is not None:
            return principal
        if not await self._any(now):
            if self._anonymous or is_loopback(address):
                return OWNER
            raise Unauthorized(
                "there are no keys yet, so only clients on the server's own machine are served"
                " (not through a proxy): create one there with `ragserve keys create`"
            )
        if credential is None or authorization is None:
            if self._anonymous:
                return READER
            raise Unauthorized("a key is needed: Authorization: Bearer rs_…")
        wait_s = self._failures.wait_s(identity_of(address), now)
        if wait_s > 0:
            AUTH_FAILURES.labels("throttled").inc()
            raise TooManyRequests(
                f"too many wrong keys from {address}; try again in {wait_s:.0f} s",
                retry_after_s=wait_s,
            )
        return await self._look_up(authorization, credential, address)

    def notified(self, key_id: str) -> None:
        """Take a notification: a key was made or changed, here or elsewhere."""
        log.info("key_changed", key=key_id)
        self.changed(key_id)

    def changed(self, _key_id: str) -> None:
        """Take note that any key may be new, another or gone."""
        self._changes += 1
        self._known.clear()
        self._any_checked_at = self._any_tried_at = _NEVER

    def heard(self, at: float) -> None:
        """Take note that everything committed before ``at`` has been notified."""
        self._heard_at = max(self._heard_at, at)

    def reload(self) -> None:
        """Trust nothing that was known before: notifications may have been missed."""
        self._heard_at = self._listening_since = time.monotonic()

    def _current(self, checked_at: float, tried_at: float, now: float) -> bool:
        if now - tried_at <= RECHECK_S:
            return True
        return checked_at >= self._listening_since and now - self._heard_at <= TRUST_S

    async def anybody(self) -> str | None:
        """Return who is served without a key, None if nobody is."""
        keys = await self._any(time.monotonic())
        if self._anonymous:
            return "everybody may ask" if keys else "everybody may do everything"
        return None if keys else "clients on this machine may do everything, others nothing"

    async def _any(self, now: float) -> bool:
        """Return whether there are keys; while nobody knows, as before, or that there are."""
        if self._current(self._any_checked_at, self._any_tried_at, now):
            return self._any_keys
        changes = self._changes
        known = self._any_checked_at > _NEVER
        try:
            async with asyncio.timeout(LOOKUP_S if known else None):
                self._any_keys = await any_keys(self._database)
        except (Unavailable, TimeoutError):
            if not known and not self._known:
                raise
            self._any_tried_at = time.monotonic()
            return self._any_keys
        if changes == self._changes:
            self._any_checked_at = self._any_tried_at = now
        return self._any_keys

    async def _look_up(self, authorization: str, credential: bytes, address: str) -> Principal:
        known = self._known.get(credential)
        changes = self._changes
        start = time.monotonic()
        scheme, _, token = authorization.partition(" ")
        try:
            async with asyncio.timeout(LOOKUP_S if known is not None else None):
                found: Principal | Refused = Refused("unknown")
                if scheme.lower() == "bearer":
                    found = await find_token(self._database, token.strip())
        except (Unavailable, TimeoutError):
            if known is None or known.principal.expired():
                raise
            known.tried_at = time.monotonic()
            return known.principal
        if isinstance(found, Refused):
            self._known.pop(credential, None)
            self._failures.take(identity_of(address), start)
            AUTH_FAILURES.labels("invalid").inc()
            log.warning(
                "key_refused",
                remote=address,
                key=_public_part(token),
                tenant=found.tenant,
                reason=found.reason,
            )
            raise Unauthorized("this key is unknown, revoked or expired")
        if changes == self._changes:
            self._known.pop(credential, None)
            self._known[credential] = _Known(found, start, start)
            if len(self._known) > KNOWN_KEYS:
                del self._known[next(iter(self._known))]
        return found

    def __repr__(self) -> str:
        return f"<Keyring {len(self._known)} keys known>"


def _credential(authorization: str | None) -> bytes | None:
    return credential_of(None if authorization is None else authorization.encode(errors="replace"))


def _public_part(token: str) -> str:
    """Return what of a token may be logged: the id of one of ours."""
    kind, _, rest = token.partition("_")
    return rest.partition("_")[0][:12] if kind == "rs" else ""
