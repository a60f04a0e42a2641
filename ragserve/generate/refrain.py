"""What repeats around the words of a streamed completion, event after event. Pure.

A server's events are mostly alike but for a word each. Where it stands is learnt from an event that
has been decoded, and tried: with another JSON string in that place the event must say the same but
for the word. From then on events are compared byte by byte, and the string is taken out as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

LESSONS = 16
"""So many may be of no use before a stream is taken for one whose events differ in more."""
PROBE = "probe \u00e4\u2028"
"""Nobody's word, and not the same in any two encodings."""
_OTHER = re.compile(rb'[\x00-\x1f"\\\[]').search
"""All but two characters and control characters are JSON as they are; ``[`` may begin a mark."""
_encode = msgspec.json.Encoder().encode

Read = Callable[[bytes], str | None]
"""Returns the word of an event's data, None if the event says anything besides."""


class Refrain:
    """What is before and behind the word; ``read`` is who understands events."""

    __slots__ = ("_after", "_before", "_lessons", "_read", "_start", "_stop")

    def __init__(self, read: Read) -> None:
        self._read = read
        self._before: bytes | tuple[()] = ()  # which nothing begins with
        self._after = b""
        self._start = self._stop = 0
        self._lessons = LESSONS

    def try_word(self, piece: bytes) -> bytes | None:
        """Return the word, as a JSON string, of the one event that ``piece`` is.

        None if it is anything else, or if the word is not plain: no mark may begin in it. Whether
        its bytes are UTF-8 is not looked at.
        """
        if not piece.startswith(self._before) or not piece.endswith(self._after):
            return None
        json = piece[self._start : self._stop]
        if len(json) < 3 or _OTHER(json, 1, len(json) - 1) is not None:
            return None
        self._lessons = LESSONS
        return json

    def learn(self, data: bytes) -> None:
        """Learn from an event that has been decoded, if it is of use."""
        if not self._lessons:
            return
        self._lessons -= 1
        word = self._read(data)
        if not word:
            return
        before, found, after = data.partition(_encode(word))
        if found and self._read(before + _encode(PROBE) + after) == PROBE:
            self._before = b'data: %b"' % before
            self._after = b'"%b\n\n' % after
            self._start = len(self._before) - 1
            self._stop = 1 - len(self._after)

    def __repr__(self) -> str:
        return f"<Refrain {'known' if self._before else 'unknown'}, {self._lessons} lessons left>"
