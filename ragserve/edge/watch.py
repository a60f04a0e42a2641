"""Connections that cost without asking: counted by address, and closed when they take too long.

Once a second all connections are looked at, which is cheaper than a timer for each request.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from aiohttp import web

from ragserve.config import LimitsConfig
from ragserve.edge.address import Proxies
from ragserve.flow.address import identity_of, is_loopback
from ragserve.metrics import CLIENTS_DROPPED

LOOK_S = 1.0
AT_ONCE = 5
"""Connections closed a turn of the loop: thousands may be due together."""
LOOKED_AT_ONCE = 500
"""Connections looked at a turn: ten thousand take milliseconds."""
NEVER = float("inf")


class Watched(Protocol):
    """A connection.

    ``head_since``: when the head that it still owes began; ``stuck_since``: when its client was
    last seen to take something of an answer that waits. Monotonic seconds, or ``NEVER``.
    """

    head_since: float
    stuck_since: float

    def note_backlog(self, now: float) -> None:
        """Look whether the client has taken something."""

    def drop(self) -> None:
        """Close it at once."""


class Watch:
    """The connections of a worker. This host and trusted proxies may have any number of them."""

    def __init__(self, limits: LimitsConfig, proxies: Proxies) -> None:
        self._limits = limits
        self._proxies = proxies
        self._counts: Counter[str] = Counter()
        self._looking: asyncio.Task[None] | None = None

    def admit(self, address: str) -> bool:
        """Count a new connection from ``address``; return whether it may stay."""
        most = self._limits.connections_per_address
        if not most or is_loopback(address) or self._proxies.trusts(address):
            return True
        identity = identity_of(address)
        if self._counts[identity] >= most:
            CLIENTS_DROPPED.labels("connections").inc()
            return False
        self._counts[identity] += 1
        return True

    def forget(self, address: str) -> None:
        """Count a connection that was admitted off."""
        identity = identity_of(address)
        left = self._counts.get(identity, 0) - 1
        if left > 0:
            self._counts[identity] = left
        else:
            self._counts.pop(identity, None)

    def start(self, connections: Callable[[], Iterable[Watched]]) -> None:
        """Look at what ``connections`` returns, from now on."""
        self._looking = asyncio.create_task(self._look(connections), name="watch")

    async def stop(self, _app: web.Application) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def look(self, connections: Iterable[Watched], now: float) -> Iterator[None]:
        """Close what takes too long; yield whenever others should have a turn."""
        head_before = now - self._limits.head_timeout_s
        stuck_before = now - self._limits.write_timeout_s
        closed = 0
        for number, connection in enumerate(connections, 1):
            reason = ""
            if connection.stuck_since != NEVER:
                connection.note_backlog(now)
            if connection.head_since < head_before:
                reason = "head"
            elif connection.stuck_since < stuck_before:
                reason = "write"
            if reason:
                CLIENTS_DROPPED.labels(reason).inc()
                connection.drop()
                closed += 1
            if number % LOOKED_AT_ONCE == 0 or (reason and closed % AT_ONCE == 0):
                yield

    async def _look(self, connections: Callable[[], Iterable[Watched]]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for _ in self.look(connections(), time.monotonic()):
                await asyncio.sleep(0)

    def __repr__(self) -> str:
        return f"<Watch {len(self._counts)} addresses>"


WATCH = web.AppKey("watch", Watch)
