"""Answers of all workers and hosts: read from the second tier, computed by one of them at a time.

Whoever is to compute an answer takes its *lease* first, a key that ends by itself unless it is
renewed; the others wait for the value to appear, or for the lease. A value is stored only by the
lease's present holder: one that was taken for dead and woke up later has no say any more.
Without Redis everybody computes.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from ragserve.cache.shared import SharedCache
from ragserve.cache.wire import pack
from ragserve.errors import Unavailable

LEASE_MS = 3000
"""So long others wait for one that died."""
RENEW_S = LEASE_MS / 3000
POLL_S = (0.02, 0.3)
"""Between two looks for the value of another, at first and at most."""

_STORE = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('del', KEYS[1])
return 1
"""
_RENEW = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('pexpire', KEYS[1], ARGV[2])"
_RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1])"


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer's JSON, when it was computed (Unix time), and its times from then on."""

    body: bytes
    computed_at: float
    fresh_s: float
    stale_s: float
    cost_s: float


class Lease:
    """The right to compute ``key``, and to store it once."""

    def __init__(self, shared: SharedCache, key: bytes, token: str) -> None:
        self._shared = shared
        self._key = key
        self._token = token
        self._stored = False

    def store_soon(self, kept: Kept) -> None:
        """Store the answer behind the response, unless the lease is another's by now."""
        self._stored = True
        self._shared.soon(self.store(kept))

    async def store(self, kept: Kept) -> bool:
        """Store the answer and give up the lease; return whether it was still ours."""
        name = value_name(self._shared, self._key)
        data = pack(name, msgspec.msgpack.encode(kept))
        px = max(1, int((kept.fresh_s + kept.stale_s) * 1000))
        keys = (_lease_name(self._shared, self._key), name)
        return bool(
            await self._shared.redis.call(
                lambda redis: redis.eval(_STORE, 2, *keys, self._token, data, px)
            )
        )

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Renew the lease until the end; give it up then, unless storing does."""
        renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            renewing.cancel()
            if not self._stored:
                self._shared.soon(self.give_up())

    async def give_up(self) -> None:
        """Let another one compute."""
        await self._ask(_RELEASE)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(Unavailable):
                await self._ask(_RENEW, LEASE_MS)

    async def _ask(self, script: str, *more: object) -> object:
        name = _lease_name(self._shared, self._key)
        return await self._shared.redis.call(
            lambda redis: redis.eval(script, 1, name, self._token, *more)
        )


class Elsewhere:
    """What other workers know or are finding out."""

    def __init__(self, shared: SharedCache) -> None:
        self.shared = shared

    async def find(self, key: bytes) -> Kept | None:
        """Return the answer if it is in the second tier."""
        data = await self.shared.get(_value_key(key))
        kept = None
        if data is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                kept = msgspec.msgpack.decode(data, type=Kept)
        return kept

    def keep_soon(self, key: bytes, lease: Lease | None, kept: Kept) -> None:
        """Store an answer behind the response; without a lease it was asked for anew."""
        if lease is not None:
            lease.store_soon(kept)
            return
        data = msgspec.msgpack.encode(kept)
        ttl_s = kept.fresh_s + kept.stale_s
        self.shared.soon(self.shared.set(_value_key(key), data, ttl=ttl_s))

    async def find_or_lease(
        self, key: bytes, until: float, *, newer_than: float = 0.0
    ) -> Kept | Lease | None:
        """Return the lease to compute the answer, or the answer if it is there by now.

        Waits for another holder of the lease up to the monotonic time ``until``. ``newer_than``
        is the Unix time up to which answers are of no interest. None if there is no Redis to ask,
        or the time is up.
        """
        pause_s, longest_s = POLL_S
        token = secrets.token_hex(16)
        name = _lease_name(self.shared, key)
        while True:
            try:
                leased = await self.shared.redis.call(
                    lambda redis: redis.set(name, token, nx=True, px=LEASE_MS)
                )
            except Unavailable:
                return None
            lease = Lease(self.shared, key, token) if leased else None
            # Also with the lease: whoever had it may have stored an answer and given it up.
            kept = await self.find(key)
            if kept is not None and kept.computed_at > newer_than:
                if lease is not None:
                    self.shared.soon(lease.give_up())
                return kept
            if lease is not None:
                return lease
            if time.monotonic() + pause_s >= until:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(longest_s, pause_s * 1.5)


def value_name(shared: SharedCache, key: bytes) -> str:
    """Return the name under which an answer is stored."""
    return f"{shared.namespace}{_value_key(key)}"


def _value_key(key: bytes) -> str:
    # Braces: in a cluster lease and value lie on the same node.
    return f"answer:{{{key.hex()}}}"


def _lease_name(shared: SharedCache, key: bytes) -> str:
    return f"{shared.namespace}lease:{{{key.hex()}}}"
