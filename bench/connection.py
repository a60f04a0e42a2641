"""One keep-alive connection of the load generator: a request out, a response in, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

Answered = Callable[[int, int, bool], None]
"""Called with the status (0: the connection broke), body bytes, and whether to use it again."""


class Connection(asyncio.Protocol):
    """Sends one request at a time; tells when its first byte and when its last has come."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answered: Answered | None = None
        self._first: Callable[[], None] | None = None
        self._bytes = 0

    @property
    def is_open(self) -> bool:
        """Return whether a request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(
        self, request: bytes, answered: Answered, first: Callable[[], None] | None = None
    ) -> None:
        """Send ``request``; ``first`` is called at the first bytes of the response's body."""
        if self._transport is None:
            raise RuntimeError("not connected")
        self._answered = answered
        self._first = first
        self._bytes = 0
        self._transport.write(request)

    def close(self) -> None:
        """Close; a response that is awaited is one that broke."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class

    def data_received(self, data: bytes) -> None:
        """Read."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._end(0, False)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._transport = None
        self._end(0, False)

    def on_body(self, body: bytes) -> None:
        """Count (called by the parser)."""
        self._bytes += len(body)
        if self._first is not None:
            first, self._first = self._first, None
            first()

    def on_message_complete(self) -> None:
        """Finish (called by the parser)."""
        status = self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        self._end(status, keep)

    def _end(self, status: int, keep: bool) -> None:
        if self._answered is not None:
            answered, self._answered = self._answered, None
            answered(status, self._bytes, keep)
