"""Servers that answer the same calls: tried again, and one after another, until one answers.

Transient failures (no connection, a timeout, 429, 5xx) are tried again after a jittered pause, or
the one that the server asks for; anything else fails at once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from ragserve.flow.backoff import backoff_s
from ragserve.upstream.failure import CallFailed
from ragserve.upstream.server import Server

PAUSE_S = 0.1
"""The first pause is up to so long, the next ones up to twice the one before."""
LONGEST_PAUSE_S = 5.0
"""A server that asks for more is not waited for."""


class Upstream:
    """``server``, asked up to ``attempts`` times."""

    def __init__(self, server: Server, *, attempts: int) -> None:
        self.server = server
        self._attempts = attempts
        self._rng = random.Random()  # noqa: S311 - jitter

    async def post(self, path: str, body: object) -> bytes:
        """Return the reply to ``body`` sent as JSON; raise ``CallFailed``."""
        content = msgspec.json.encode(body)
        return await self.call(lambda server: server.post(path, content))

    async def get(self, path: str) -> bytes:
        """Return the reply, tried once."""
        return await self.server.get(path)

    async def call(
        self,
        use: Callable[[Server], Awaitable[bytes]],
        may_repeat: Callable[[], bool] = lambda: True,
    ) -> bytes:
        """Return what ``use`` returns; a failure is final once ``may_repeat`` says so."""
        for attempt in range(1, self._attempts + 1):
            try:
                return await use(self.server)
            except CallFailed as error:
                pause_s = self._pause_s(attempt, error)
                if pause_s is None or not may_repeat():
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Close the connections."""
        await self.server.close()

    def _pause_s(self, attempt: int, error: CallFailed) -> float | None:
        """Return how long to wait after a failure, None to give up."""
        if attempt == self._attempts or not error.may_pass:
            return None
        pause_s = backoff_s(attempt, base_s=PAUSE_S, cap_s=LONGEST_PAUSE_S, rng=self._rng)
        if error.retry_after_s is None:
            return pause_s
        asked_s = error.retry_after_s
        return None if asked_s > LONGEST_PAUSE_S else asked_s + pause_s
