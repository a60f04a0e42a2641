"""The second tier: Redis behind aiocache's interface. Every failure is a miss."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from aiocache.base import BaseCache
from aiocache.serializers import NullSerializer

from ragserve.cache.reads import Reads
from ragserve.cache.wire import pack, unpack
from ragserve.errors import Unavailable
from ragserve.store.redis import Redis

WRITES = 256
"""Writes under way at once; what is not written for want of room is computed again some day."""
FINISH_S = 1.0


class SharedCache(BaseCache):  # type: ignore[misc] # aiocache has no types
    """Bytes by key, for all workers and hosts. ``namespace`` precedes all keys."""

    NAME = "redis"

    def __init__(self, redis: Redis, namespace: str) -> None:
        # The deadline is Redis.call's: aiocache's own would cost a task for each operation.
        super().__init__(serializer=NullSerializer(encoding=None), namespace=namespace, timeout=0)
        self.redis = redis
        self._reads = Reads(redis)
        self._writes: set[asyncio.Task[Any]] = set()

    def soon(self, write: Coroutine[Any, Any, object]) -> None:
        """Let ``write`` happen behind the answer, or not at all if too much is under way."""
        if len(self._writes) >= WRITES:
            write.close()
            return
        task = asyncio.create_task(_quietly(write))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _get(self, key: str, encoding: object = None, _conn: object = None) -> bytes | None:
        try:
            return unpack(key, await self._reads.read(key))
        except Unavailable:
            return None

    async def _multi_get(
        self, keys: Sequence[str], encoding: object = None, _conn: object = None
    ) -> list[bytes | None]:
        return await asyncio.gather(*(self._get(key) for key in keys))

    async def _set(
        self,
        key: str,
        value: bytes,
        ttl: float | None,
        _cas_token: object = None,
        _conn: object = None,
    ) -> bool:
        px = None if ttl is None else max(1, int(ttl * 1000))
        return await self._try(lambda redis: redis.set(key, pack(key, value), px=px))

    async def _multi_set(
        self, pairs: Sequence[tuple[str, bytes]], ttl: float | None, _conn: object = None
    ) -> bool:
        return all(await asyncio.gather(*(self._set(key, value, ttl) for key, value in pairs)))

    async def _delete(self, key: str, _conn: object = None) -> int:
        return int(await self._try(lambda redis: redis.delete(key)))

    async def _exists(self, key: str, _conn: object = None) -> bool:
        return await self._try(lambda redis: redis.exists(key))

    async def _close(self, *_args: object, _conn: object = None, **_more: object) -> None:
        """Finish what is being written, within a second."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=FINISH_S)

    async def _try(self, use: Any) -> bool:
        try:
            return bool(await self.redis.call(use))
        except Unavailable:
            return False

    def __repr__(self) -> str:
        return f"<SharedCache {self.redis!r}, {len(self._writes)} writes under way>"


async def _quietly(write: Coroutine[Any, Any, object]) -> None:
    with contextlib.suppress(Unavailable):
        await write
