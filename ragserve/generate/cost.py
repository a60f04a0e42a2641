"""What a completion has cost if its server does not say: an estimate of four bytes a token.

Of what is passed on as it is nothing is decoded on the way: its end, where a server says what it
took, is kept aside and looked at once it is over.
"""

from __future__ import annotations

import re

from ragserve.generate.reply import count, decode_text, decode_usage
from ragserve.schema import Usage

TOKEN_BYTES = 4
"""So many has a token of English; those of other scripts have fewer characters, of more bytes."""
TAIL_BYTES = 2048
"""The event that tells the usage, and those behind it, are in the last so many."""
FOLDED = 16
"""So many pieces are looked at together."""
_PICTURE = re.compile(rb'"data:[^"]+"')


def estimate(prompt_bytes: int, completion_bytes: int, events: int = 0) -> Usage:
    """Return about how many tokens that is; an event is about a token at least."""
    prompt = prompt_bytes // TOKEN_BYTES
    completion = max(completion_bytes // TOKEN_BYTES, events)
    return Usage(prompt, completion, prompt + completion)


class RelayedCost:
    """The cost of a client's own ``request``, which may end, or be ended, at any time."""

    __slots__ = ("_bytes", "_lines", "_pieces", "_request", "_tail", "_whole")

    def __init__(self, request: bytes) -> None:
        self._pieces: list[bytes] = []
        self._request = request
        self._tail = bytearray()
        self._bytes = 0
        self._lines = 0
        self._whole: bytes | None = None

    def hear(self, piece: bytes) -> None:
        """Take a piece of a stream, cut anywhere."""
        self._pieces.append(piece)
        if len(self._pieces) >= FOLDED:
            self._fold()

    def take(self, reply: bytes) -> None:
        """Take a whole reply in place of a stream."""
        self._whole = reply

    def settle(self) -> Usage:
        """Return, and count, the tokens: as told, else as estimated; none if there was no answer.

        Call it once, when nothing more will come.
        """
        self._fold()
        usage = self._usage()
        count(usage)
        return usage

    def _fold(self) -> None:
        heard = b"".join(self._pieces)
        self._pieces.clear()
        self._bytes += len(heard)
        self._lines += heard.count(b"\n")
        self._tail += heard[-TAIL_BYTES:]
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]

    @property
    def _events(self) -> int:
        """Return how many there were: each is a line and an empty one."""
        return self._lines // 2

    def _usage(self) -> Usage:
        if self._whole is not None:
            told = decode_usage(self._whole)
            return told or estimate(self._prompt_bytes(), len(decode_text(self._whole).encode()))
        if not self._bytes:
            return Usage()
        tail = bytes(self._tail).replace(b"\r\n", b"\n")
        for line in reversed(tail.split(b"\n")):
            if b'"usage"' in line and (told := decode_usage(line.removeprefix(b"data:"))):
                return told
        return estimate(self._prompt_bytes(), self._words_bytes(tail), self._events)

    def _words_bytes(self, tail: bytes) -> int:
        """Return about how many bytes were words: what events have beyond the smallest of them."""
        sizes = [len(event) + 2 for event in tail.split(b"\n\n")[:-1] if event[:7] == b"data: {"]
        return self._bytes - self._events * min(sizes) if sizes else 0

    def _prompt_bytes(self) -> int:
        """Return the size of what was asked; pictures are not paid by the byte."""
        return len(_PICTURE.sub(b"", self._request))

    def __repr__(self) -> str:
        return f"<RelayedCost {self._events} events, {self._bytes} bytes>"
