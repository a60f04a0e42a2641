"""Whether an event loop turns, as another thread sees it.

A timer that feeds a watchdog says too little: all that has arrived is read before the next timer is
looked at, and a process that was given hardly any processor for a while has seconds' worth of it.
Looked at from outside, a loop that turns is in another callback each time, or in none: uvloop gives
up the interpreter's lock behind each, which is when another thread gets to look. One that hangs is
in the same.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import FrameType


class Pulse:
    """The running loop's, once ``begin`` was awaited on it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._base: FrameType | None = None
        self._last: FrameType | None = None

    async def begin(self) -> None:
        """Find out where callbacks begin: what is below two of them, below them all is."""
        before, after = await _stack_of_a_callback(), await _stack_of_a_callback()
        self._base = next((frame for frame in after if frame in before), None)

    def look(self) -> bool:
        """Return whether the loop is in another callback than at the last look, or in none."""
        before, self._last = self._last, self._callback()
        return self._last is None or self._last is not before

    def _callback(self) -> FrameType | None:
        stack = _stack(sys._current_frames().get(self._thread))
        return next((frame for frame in stack if frame.f_back is self._base), None)

    def __repr__(self) -> str:
        return f"<Pulse of thread {self._thread}>"


@asynccontextmanager
async def watched(interval_s: float, alive: Callable[[], None]) -> AsyncIterator[None]:
    """Call ``alive``, in another thread, whenever a look shows that the running loop turns."""
    pulse = Pulse()
    await pulse.begin()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(interval_s):
            if pulse.look():
                alive()

    threading.Thread(target=watch, name="pulse", daemon=True).start()
    try:
        yield
    finally:
        over.set()


async def _stack_of_a_callback() -> list[FrameType]:
    loop = asyncio.get_running_loop()
    stack: asyncio.Future[list[FrameType]] = loop.create_future()
    loop.call_soon(lambda: stack.set_result(list(_stack(sys._getframe()))))
    return await stack


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that it returns to."""
    while frame is not None:
        yield frame
        frame = frame.f_back
