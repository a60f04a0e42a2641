"""Ready responses: bytes that need only what differs from request to request."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus

import msgspec
from aiohttp.http import SERVER_SOFTWARE


class Prepared:
    """A response's bytes: ``head`` without its empty line, ``body``, and when it was stored.

    ``stored_at`` is monotonic seconds, None for what is no cached answer.
    """

    __slots__ = ("_age", "_age_line", "body", "head", "stored_at")

    def __init__(self, head: bytes, body: bytes, stored_at: float | None = None) -> None:
        self.head = head
        self.body = body
        self.stored_at = stored_at
        self._age = -1
        self._age_line = b""

    def age_line(self, now: float) -> bytes:
        """Return the ``Age`` header (RFC 9111, 5.1), or nothing if this is no cached answer."""
        if self.stored_at is None:
            return b""
        age = int(now - self.stored_at)
        if age != self._age:
            self._age = age
            self._age_line = b"Age: %d\r\n" % age
        return self._age_line


def prepare(
    status: int, headers: dict[str, str], body: bytes, *, stored_at: float | None = None
) -> Prepared:
    """Return a response of these headers besides those that every response has."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
        f"Server: {SERVER_SOFTWARE}",
    ]
    return Prepared(("\r\n".join(lines) + "\r\n").encode("ascii"), body, stored_at)


class _Date:
    """The ``Date`` line (RFC 9110, 6.6.1), written once a second."""

    __slots__ = ("_line", "_until")

    def __init__(self) -> None:
        self._until = 0.0
        self._line = b""

    def line(self, now: float) -> bytes:
        """Return the line at a time in monotonic seconds."""
        if now >= self._until:
            wall = time.time()
            self._until = now + 1.0 - wall % 1.0
            self._line = f"Date: {formatdate(wall, usegmt=True)}\r\n\r\n".encode("ascii")
        return self._line


_date_line = _Date().line


def assemble(prepared: Prepared, lines: bytes, request_id: bytes, now: float) -> bytes:
    """Return a whole response: ``lines`` are further header lines, each with its end."""
    return b"".join(
        (
            prepared.head,
            prepared.age_line(now),
            lines,
            b"X-Request-ID: ",
            request_id,
            b"\r\n",
            _date_line(now),
            prepared.body,
        )
    )


def prepare_json(value: object, *, status: int = 200) -> Prepared:
    """Return a JSON response."""
    return prepare(status, {"Content-Type": "application/json"}, msgspec.json.encode(value))
