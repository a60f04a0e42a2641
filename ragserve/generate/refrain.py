"""What repeats around the words of a streamed completion, event after event. Pure.

A server's events are mostly alike but for a word each. Where it stands is learnt from an event that
has been decoded, and tried: with another JSON string in that place the event must say the same but
for the word. From then on events are compared byte by byte, in the HTTP chunk that each comes in,
and the word is taken out as it is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import msgspec

from ragserve.flow.chunked import LONGEST, SINGLE

LESSONS = 16
"""So many may be of no use before a stream is taken for one whose events differ in more."""
PROBE = "probe \u00e4\u2028"
"""Nobody's word, and not the same in any two encodings."""
AFTERS = 100
"""So many different ones are remembered, none longer than a chunk that is compared."""
_NOT_PLAIN = b'"\\['
"""All but two characters and control characters are JSON as they are; ``[`` may begin a mark."""
_OTHER = re.compile(rb"[\x00-\x1f%b]" % re.escape(_NOT_PLAIN)).search
_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in _NOT_PLAIN)
_SPACE = 0x20
_encode = msgspec.json.Encoder().encode

Read = Callable[[bytes], str | None]
"""Returns the word of an event's data, None if the event says anything besides."""


class Refrain:
    """What is before and behind the word; ``read`` is who understands events."""

    __slots__ = ("_after", "_before", "_lessons", "_read", "_size", "_stop")

    def __init__(self, read: Read) -> None:
        self._read = read
        self._before = b""
        self._after = b""
        self._size = LONGEST
        """Of the chunk around an empty word; at first no chunk is long enough."""
        self._stop = 0
        self._lessons = LESSONS

    def try_word(self, chunk: bytes) -> bytes | None:
        """Return the word, as between a JSON string's quotes, of the one event ``chunk`` has.

        None if it is anything else, or if the word is not plain: no mark may begin in it, no white
        space may end it.
        """
        size = len(chunk)
        if not self._size < size < LONGEST:
            return None
        head = SINGLE[size]
        start = len(head)
        if not (
            chunk.startswith(head)
            and chunk.startswith(self._before, start)
            and chunk.endswith(self._after)
        ):
            return None
        word = chunk[start + len(self._before) : self._stop]
        if not word:
            return None
        if (word.lstrip(_PLAIN) or word[-1] == _SPACE) and not _is_plain(word):
            return None
        self._lessons = LESSONS
        return word

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
            self._after = b'"%b\n\n\r\n' % after
            if len(self._after) < LONGEST:
                self._after = _one_object(self._after)
            self._size = len(self._before) + len(self._after)
            self._stop = -len(self._after)

    def __repr__(self) -> str:
        return f"<Refrain {'known' if self._before else 'unknown'}, {self._lessons} lessons left>"


@functools.lru_cache(maxsize=AFTERS)
def _one_object(after: bytes) -> bytes:
    """Return the same object for what is the same in many streams: one that stays in the cache."""
    return after


def _is_plain(word: bytes) -> bool:
    """Return whether a word of any script can be said as it is, whatever follows."""
    if _OTHER(word) is not None:
        return False
    try:
        text = word.decode()
    except UnicodeDecodeError:
        return False  # whoever decodes the event says so
    return not text[-1].isspace()
