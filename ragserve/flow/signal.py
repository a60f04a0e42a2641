"""A signal that many may wait for at once and that is never missed between two waits."""

from __future__ import annotations

import asyncio


class Signal:
    """``send`` wakes everybody who waits; ``wait`` returns whether it was sent in time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def send(self) -> None:
        """Wake everybody who waits now."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait for the next ``send``, at most ``timeout_s`` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        return True
