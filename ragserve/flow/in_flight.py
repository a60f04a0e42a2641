"""Requests under way: counted, and waited for when a worker drains."""

from __future__ import annotations

import asyncio
from types import TracebackType


class InFlight:
    """A context manager around each request."""

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    async def wait_none(self, timeout_s: float) -> bool:
        """Wait until no request is under way; return whether that came within the time."""
        if self.count:
            self._none.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._none.wait()
        except TimeoutError:
            return False
        return True

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.count -= 1
        if self.count == 0:
            self._none.set()

    def __repr__(self) -> str:
        return f"<InFlight {self.count} requests>"
