"""HTTP chunks (RFC 9112, 7.1) of the plainest kind, without a parser. Pure.

What a chunk's head is follows from the length of the whole: so many bytes with their frame can be
one chunk in one way only, if its head has no extension and no more digits than it needs.
"""

from __future__ import annotations

FRAME = 4
"""Bytes around content and length: two line ends."""
LONGEST = 2048
"""More than any token's event; longer chunks have a parser or a format string."""

HEADS = tuple(b"%x\r\n" % size for size in range(LONGEST))
"""The first line of a chunk of so many bytes."""


def _single() -> tuple[bytes, ...]:
    heads = [b"\n"] * LONGEST  # no chunk begins so
    for size, head in enumerate(HEADS):
        whole = size + len(head) + 2
        if size and whole < LONGEST:
            heads[whole] = head
    return tuple(heads)


SINGLE = _single()
"""By the length of a whole chunk, the head that it has."""


def try_single(data: bytes) -> bytes | None:
    """Return what is in the one chunk that ``data`` is; None if it is anything else."""
    size = len(data)
    if size >= LONGEST:
        return None
    head = SINGLE[size]
    if data.startswith(head) and data.endswith(b"\r\n"):
        return data[len(head) : -2]
    return None


def framed(content: bytes) -> bytes:
    """Return ``content``, which is not empty, as a chunk."""
    size = len(content)
    head = HEADS[size] if size < LONGEST else b"%x\r\n" % size
    return head + content + b"\r\n"
