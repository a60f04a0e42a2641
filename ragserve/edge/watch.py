"""Connections that cost without asking: counted by address, and closed when they take too long.

Once a second all connections are looked at, which is cheaper than a timer for each request.
"""

from __future__ import annotations

import asyncio
import math
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
CLOSING_S = 0.8
"""Those that are due together are closed over this time. They are back at once, and a thousand new
connections are work for a tenth of a second, in which nobody else would get a word in."""
STEP_S = 0.005
"""Some are closed, then others have so long."""
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

    def look(self, connections: Iterable[Watched], now: float) -> Iterator[float]:
        """Close what takes too long; yield for how many seconds others should have the loop."""
        due = []
        for number, connection in enumerate(connections, 1):
            if connection.stuck_since != NEVER:
                connection.note_backlog(now)
            if self._fault(connection, now):
                due.append(connection)
            if number % LOOKED_AT_ONCE == 0:
                yield 0.0
        at_once = math.ceil(len(due) * STEP_S / CLOSING_S)
        for number, connection in enumerate(due, 1):
            if reason := self._fault(connection, now):  # it may have gone on meanwhile
                CLIENTS_DROPPED.labels(reason).inc()
                connection.drop()
            if number % at_once == 0:
                yield STEP_S

    def _fault(self, connection: Watched, now: float) -> str:
        """Return for what a connection is to be closed, "" if it may stay."""
        if connection.head_since < now - self._limits.head_timeout_s:
            return "head"
        return "write" if connection.stuck_since < now - self._limits.write_timeout_s else ""

    async def _look(self, connections: Callable[[], Iterable[Watched]]) -> None:
        await asyncio.sleep(LOOK_S)
        while True:
            now = time.monotonic()
            for pause_s in self.look(connections(), now):
                await asyncio.sleep(pause_s)
            await asyncio.sleep(max(0.0, now + LOOK_S - time.monotonic()))

    def __repr__(self) -> str:
        return f"<Watch {len(self._counts)} addresses>"


WATCH = web.AppKey("watch", Watch)
