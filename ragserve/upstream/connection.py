"""One HTTP/1.1 connection as a client: an asyncio protocol around httptools' parser.

Bodies may be chunked, of a stated length, or end with the connection. One exchange at a time;
nothing is pipelined. A stream's last event often comes before the end of its body: the connection
then *lingers* until the rest has arrived, and only then is it of use again.

A model's server mostly sends a token as one chunk that arrives by itself. Such a chunk, when the
parser stands before one, is offered to the exchange's skimmer as it is, and else taken out of its
frame here: the parser need not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ragserve.flow.chunked import try_single
from ragserve.upstream.exchange import Exchange
from ragserve.upstream.failure import CallFailed, ClosedEarly

MAX_HEAD_BYTES = 64 * 1024
LINGER_S = 1.0
"""What follows the last event is the end of the body; who keeps it back is not waited for."""


class Connection(asyncio.Protocol):
    """``on_free`` is called when the next exchange may begin, ``on_lost`` when none will."""

    __slots__ = (
        "_before_chunk",
        "_between_chunks",
        "_complete",
        "_exchange",
        "_headers",
        "_heard",
        "_in_body",
        "_keep_alive",
        "_lingering",
        "_loop",
        "_on_free",
        "_on_lost",
        "_parser",
        "_pieces",
        "_surplus",
        "_timer",
        "_transport",
        "_until_close",
        "closed",
        "used",
    )

    def __init__(
        self, on_free: Callable[[Connection], None], on_lost: Callable[[Connection], None]
    ) -> None:
        self.closed = False
        self.used = False
        self._on_free = on_free
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._exchange: Exchange | None = None
        self._lingering = False
        self._reset()

    def _reset(self) -> None:
        self._parser = HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._heard = 0
        self._in_body = False
        self._between_chunks = False
        self._before_chunk = False
        self._until_close = False
        self._complete = False
        self._keep_alive = False
        self._surplus = False

    async def perform(self, head: bytes, content: bytes, exchange: Exchange) -> bytes:
        """Send a request and return its reply; cancelling closes the connection at once."""
        if self._transport is None or self._transport.is_closing():
            raise ClosedEarly
        self._reset()
        self._exchange = exchange
        self._transport.write(head + content)
        exchange.begin()
        well = False
        try:
            reply = await exchange.done
            well = True
            return reply
        finally:
            exchange.close()
            self._exchange = None
            self.used = True
            if self._complete and self._keep_alive:
                self._free()
            elif well and self._in_body and not self._complete and not self._until_close:
                self._lingering = True
                self.close_in(LINGER_S)
            else:
                self.close()

    def close_in(self, seconds: float) -> None:
        """Close after so long, unless it is kept."""
        self.keep()
        self._timer = self._loop.call_later(seconds, self.close)

    def keep(self) -> None:
        """Forget about closing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what has arrived, at once."""
        exchange = self._exchange
        if exchange is not None:
            skimmer = exchange.skimmer
            if skimmer is not None and skimmer.skim(data):
                return
        self._read(data, exchange)

    def _read(self, data: bytes, exchange: Exchange | None) -> None:
        """Parse what has arrived."""
        if exchange is None and not self._lingering:
            self.close()  # nobody asked
            return
        if self._before_chunk and exchange is not None:
            content = try_single(data)
            if content is not None:
                exchange.body(content)
                return
        self._heard += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(CallFailed(f"no HTTP reply: {error}", "garbage"))
            return
        # Behind half a chunk's head the parser has called nothing, but no line has ended either.
        self._before_chunk = self._between_chunks and data.endswith(b"\r\n")
        if exchange is None:
            if self._complete:
                self._free() if self._keep_alive else self.close()
            return
        if not self._in_body and self._heard > MAX_HEAD_BYTES:
            self._fail(CallFailed(f"a reply's head over {MAX_HEAD_BYTES} bytes", "size"))
            return
        if self._pieces:
            body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            exchange.body(body)
        if not self._before_chunk:
            exchange.skimmer = None
        if self._complete:
            exchange.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange: a body may end so, anything else is a failure."""
        self.closed = True
        self.keep()
        if self._exchange is not None:
            if self._until_close and exc is None:
                self._exchange.end()
            elif not self._heard and self.used:
                self._exchange.fail(ClosedEarly())
            else:
                how = f": {exc}" if exc is not None else ""
                when = "in the midst of a reply" if self._heard else "without a reply"
                self._exchange.fail(CallFailed(f"connection closed {when}{how}", "closed"))
        self._on_lost(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Nothing may follow a reply: not even what looks like one."""
        if self._complete:
            self._surplus = True
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.lower().decode("latin-1")] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Take note of what the body will be."""
        if self._surplus:
            return
        status = self._parser.get_status_code()
        headers = self._headers
        self._headers = {}
        if status < 200:
            return  # an interim response, the next one may be the reply
        self._in_body = True
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._between_chunks = chunked
        self._until_close = not chunked and "content-length" not in headers and status != 204
        if self._exchange is not None:
            self._exchange.head(status, headers)

    def on_chunk_header(self) -> None:
        """Take note that a chunk has begun, maybe the last one, behind which none does."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Take note that the next one may begin."""
        self._between_chunks = not self._complete

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        if not self._surplus:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        """Take note of a message's end."""
        if self._in_body:
            self._complete = True
            self._between_chunks = False
            self._keep_alive = not self._surplus and self._parser.should_keep_alive()

    def _free(self) -> None:
        self._lingering = False
        self.keep()
        self._on_free(self)

    def _fail(self, error: CallFailed) -> None:
        if self._exchange is not None:
            self._exchange.fail(error)
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self._exchange else "idle"
        return f"<Connection {'lingering' if self._lingering else state}>"
