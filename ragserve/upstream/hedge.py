"""Hedged calls: of several attempts at one answer the first to speak is heard.

A server that is silent for longer than 95 of 100 first words took gets company: a second attempt
at another server. Whichever speaks first goes on; the other is cancelled in that moment (Dean,
Barroso, "The Tail at Scale", 2013).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ragserve.flow.recent import Recent
from ragserve.upstream.failure import CallFailed

PERCENT = 95.0

Speak = Callable[[], None]
"""An attempt calls it before the first word that it passes on; what it raises is not to be heard
of any more."""


class Floor:
    """Whose words are passed on: one attempt's of a call, once it has any."""

    def __init__(self, first_words: Recent) -> None:
        self.speaker: object = None
        self._first_words = first_words
        self._attempts: dict[object, tuple[float, asyncio.Task[object] | None]] = {}

    @property
    def taken(self) -> bool:
        """Return whether words have been passed on, which cannot be taken back."""
        return self.speaker is not None

    @contextmanager
    def attempt(self) -> Iterator[Speak]:
        """Yield what an attempt calls before it speaks; each of several has its own task."""
        attempt = object()
        self._attempts[attempt] = (time.monotonic(), asyncio.current_task())

        def speak() -> None:
            if self.speaker is attempt:
                return
            if self.speaker is not None:
                raise CallFailed("another server spoke first", "outrun")
            self.speaker = attempt
            now = time.monotonic()
            for other, (since, task) in self._attempts.items():
                # Of those that are cut off it is known that they would have taken longer.
                self._first_words.add(now - since)
                if other is not attempt and task is not None:
                    task.cancel()

        try:
            yield speak
        finally:
            del self._attempts[attempt]

    def __repr__(self) -> str:
        return f"<Floor {len(self._attempts)} attempts{', taken' if self.taken else ''}>"
