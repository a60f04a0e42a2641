"""The express lane's matcher: is this exactly one plain HTTP/1.1 request? Pure, no I/O.

Whoever answers from the lane takes over what the server's parser would have decided: where the
request ends. Two parsers that disagree about that are request smuggling, so this one accepts a
small language in which there is nothing to disagree about, and says "I do not know" to the rest:

- a known method, an origin-form target without fragment, ``HTTP/1.1``, CRLF at every line's end;
- header names that are tokens (RFC 9110, 5.6.2), values of visible ASCII and spaces, no name
  twice, at most ``HEAD_BYTES`` and ``FIELDS`` in all, and one Host that is a plain name or address;
- at most one Content-Length, of 1 to 7 digits without leading zero, and nothing else that changes
  framing, encoding or the connection.

A keep-alive client sends the same head again and again, so heads that led to an answer are
remembered by their exact bytes: a lookup then replaces the parsing.
"""

from __future__ import annotations

import re
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

HEAD_BYTES = 8000
"""Longest head; below the 8,190 bytes that aiohttp allows one field."""
FIELDS = 100
"""Most header lines; aiohttp allows 128."""
MEMO_BYTES = 2 * 1024**2
"""Remembered heads, in two generations: a thousand clients of 40 lengths each, roughly."""
_ENTRY_BYTES = 600
"""A remembered head besides its bytes: tuple, values and dict slot."""

_HEAD = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) "
    rb"(/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*+) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9!#$%&'*+.^_`|~-]++:[ -~]*+\r\n)++)\r\n"
)
HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,6}")
_UNUSUAL = frozenset(
    b"transfer-encoding expect upgrade content-encoding trailer te "
    b"http2-settings sec-websocket-key1 proxy-connection".split()
)


class Plain(NamedTuple):
    """The head of a plain request: ``size`` bytes, to be followed by ``length`` of body.

    A header that is absent is None; one that is empty is ``b""``.
    """

    method: bytes
    target: bytes
    size: int
    length: int
    authorization: bytes | None
    cache_control: bytes | None
    content_type: bytes | None
    accept: bytes | None
    origin: bytes | None
    forwarded_for: bytes | None
    request_id: bytes | None
    traceparent: bytes | None
    pragma: bytes | None

    @property
    def repeats(self) -> bool:
        """Return whether a client is likely to send this very head again."""
        return self.request_id is None and self.traceparent is None


def parse_plain(head: bytes) -> Plain | None:
    """Return what ``head`` (up to and including the empty line) says, or None if it is not plain.

    >>> parse_plain(b"GET /ready HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n").target
    b'/ready'
    >>> parse_plain(b"GET /ready HTTP/1.1\\r\\nHost : a\\r\\n\\r\\n") is None
    True
    """
    match = _HEAD.fullmatch(head) if len(head) <= HEAD_BYTES else None
    if match is None:
        return None
    lines = match[3].split(b"\r\n")
    lines.pop()
    if len(lines) > FIELDS:
        return None
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.lower()] = value.strip(b" ")
    get = fields.get
    if len(fields) != len(lines) or not _UNUSUAL.isdisjoint(fields):
        return None
    # What HTTP/1.1 does anyway, and what most clients' libraries send.
    if get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = get(b"content-length", b"0")
    if not HOST.fullmatch(get(b"host", b"")) or not _LENGTH.fullmatch(length):
        return None
    return Plain(
        method=match[1],
        target=match[2],
        size=len(head),
        length=int(length),
        authorization=get(b"authorization"),
        cache_control=get(b"cache-control"),
        content_type=get(b"content-type"),
        accept=get(b"accept"),
        origin=get(b"origin"),
        forwarded_for=get(b"x-forwarded-for"),
        request_id=get(b"x-request-id"),
        traceparent=get(b"traceparent"),
        pragma=get(b"pragma"),
    )


class Memo(Generic[T]):
    """What was found out about a head, by the head's exact bytes, in two generations.

    ``young`` is what callers look at first; a head found in the older generation moves up. When
    the young ones fill half of the capacity they become the old ones, and what nobody asked for
    in the meantime is gone.
    """

    __slots__ = ("_capacity_bytes", "_old", "_young_bytes", "young")

    def __init__(self, capacity_bytes: int = MEMO_BYTES) -> None:
        self.young: dict[bytes, T] = {}
        self._old: dict[bytes, T] = {}
        self._young_bytes = 0
        self._capacity_bytes = capacity_bytes

    def find(self, head: bytes) -> T | None:
        """Return what is remembered of ``head``."""
        value = self.young.get(head)
        if value is None:
            value = self._old.get(head)
            if value is not None:
                self.remember(head, value)
        return value

    def remember(self, head: bytes, value: T) -> None:
        """Remember ``value`` for ``head``."""
        if head in self.young:
            return
        size = len(head) + _ENTRY_BYTES
        if 2 * (self._young_bytes + size) > self._capacity_bytes:
            self._old = self.young
            self.young = {}
            self._young_bytes = 0
        self.young[head] = value
        self._young_bytes += size

    def __len__(self) -> int:
        return len(self.young.keys() | self._old.keys())

    def __repr__(self) -> str:
        return f"<Memo {len(self)} heads, at most {self._capacity_bytes} bytes>"
