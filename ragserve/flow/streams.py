"""The answers being streamed: ended together when a worker can no longer wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Streams:
    """The tasks behind open streams."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def under_way(self, task: asyncio.Task[Any]) -> Iterator[None]:
        """Count a stream as open."""
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        """Cancel what is behind every open stream; each tells its client so, and ends."""
        for task in tuple(self._tasks):
            task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<Streams {len(self)} open>"
