"""What an answer in the making tells those who listen: its sources, then its words.

Words travel as JSON, encoded once for all readers. JSON strings can be joined without being read:
that is how a ``Transcript`` keeps an answer's words in as many bytes as they have, where a delta
for every token took thirty times that, for as long as the answer was being written.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ragserve.schema import Citation


class Sources(msgspec.Struct, frozen=True):
    """What the marks of the text to come refer to."""

    citations: list[Citation]


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the answer's text, as a JSON string."""

    json: bytes


Event = Sources | Delta
_encode = msgspec.json.Encoder().encode


def delta(text: str) -> Delta:
    """Return the event that says ``text``."""
    return Delta(_encode(text))


class Transcript:
    """What has been told so far; words that followed each other have become one delta."""

    __slots__ = ("_told", "_words")

    def __init__(self) -> None:
        self._told: list[Sources | bytearray] = []
        self._words: bytearray | None = None
        """The last of them, if it is words."""

    def append(self, event: Event) -> None:
        """Add the newest event."""
        if isinstance(event, Sources):
            self._words = None
            self._told.append(event)
            return
        if self._words is None:
            self._words = bytearray()
            self._told.append(self._words)
        self._words += event.json[1:-1]

    def clear(self) -> None:
        """Forget all."""
        self._told.clear()
        self._words = None

    def __iter__(self) -> Iterator[Event]:
        for event in self._told:
            yield event if isinstance(event, Sources) else Delta(b'"%b"' % bytes(event))

    def __len__(self) -> int:
        return len(self._told)

    def __repr__(self) -> str:
        return f"<Transcript {len(self)} events>"
