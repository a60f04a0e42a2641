"""What an answer in the making tells those who listen: its sources, then its words."""

from __future__ import annotations

import msgspec

from ragserve.schema import Citation


class Sources(msgspec.Struct, frozen=True):
    """What the marks of the text to come refer to."""

    citations: list[Citation]


class Delta(msgspec.Struct, frozen=True, gc=False):
    """The next piece of the answer's text; ``json`` is the same, encoded once for all readers."""

    text: str
    json: bytes


Event = Sources | Delta
_encode = msgspec.json.Encoder().encode


def delta(text: str) -> Delta:
    """Return the event that says ``text``."""
    return Delta(text, _encode(text))
