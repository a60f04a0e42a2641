"""What an answer in the making tells those who listen: its sources, then its words.

Words travel as bytes, as they stand between the quotes of a JSON string: so they come from a model,
so they go to all readers, and so they can be joined without being read. That is how a
``Transcript`` keeps an answer's words in as many bytes as they have.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ragserve.schema import Citation


class Sources(msgspec.Struct, frozen=True):
    """What the marks of the text to come refer to."""

    citations: list[Citation]


Event = Sources | bytes
"""Bytes are the next words of the answer."""
_encode = msgspec.json.Encoder().encode


def words(text: str) -> bytes:
    """Return the event that says ``text``."""
    return _encode(text)[1:-1]


class Transcript:
    """What has been told so far; words that followed each other have become one event."""

    __slots__ = ("_growing", "_told")

    def __init__(self) -> None:
        self._told: list[Sources | bytes | bytearray] = []
        self._growing: bytearray | None = None
        """The last of them, if words are added to it."""

    def append(self, event: Event | bytearray) -> None:
        """Add the newest event; to a bytearray its owner may add words by itself."""
        if isinstance(event, bytes):
            if self._growing is None:
                self._growing = bytearray()
                self._told.append(self._growing)
            self._growing += event
            return
        self._growing = event if isinstance(event, bytearray) else None
        self._told.append(event)

    def clear(self) -> None:
        """Forget all."""
        self._told.clear()
        self._growing = None

    def __iter__(self) -> Iterator[Event]:
        for event in self._told:
            yield event if isinstance(event, Sources) else bytes(event)

    def __len__(self) -> int:
        return len(self._told)

    def __repr__(self) -> str:
        return f"<Transcript {len(self)} events>"
