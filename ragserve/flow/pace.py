"""One piece of work a turn of the event loop.

What was computed together becomes known at once, and all who waited for it would go on in the same
turn: a dozen searches, a millisecond each, before anybody else is heard. Who takes the pace goes on
in a turn of its own; between two, the loop looks at its sockets.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Pace:
    """Turns in the order in which they were asked for. For one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Return at once if nobody else has had this turn of the loop, else in one of the next."""
        loop = asyncio.get_running_loop()
        if self._taken:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        """Give the turn that begins to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # who has left needs none
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False

    def __repr__(self) -> str:
        return f"<Pace, {len(self._waiting)} waiting>"
