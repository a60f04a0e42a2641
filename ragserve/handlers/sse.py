"""Server-sent events: one response that grows, straight to the client's transport.

``StreamResponse.write`` costs a coroutine, a join and a drain for every piece; a stream of tokens
needs none of them. Once aiohttp has sent the head, frames go to the transport as they are, in
HTTP chunks made here, and aiohttp ends the message.

A reader that does not keep up is not waited for: it is cut off when its backlog passes a bound or
has not shrunk in time, so that it holds neither memory nor its neighbours who hear the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from aiohttp import HttpVersion11, web

from ragserve.config import StreamConfig
from ragserve.flow.chunked import HEADS, LONGEST, framed
from ragserve.handlers.services import REQUEST_ID
from ragserve.metrics import FIRST_TEXT_SECONDS, STREAMS_CUT_OFF, STREAMS_OPEN
from ragserve.pipeline import Event, Sources

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
KEEP_ALIVE = b": keep-alive\n\n"


class Frames(Protocol):
    """What events look like on the wire."""

    around: tuple[bytes, bytes]
    """What stands before and behind words."""

    def sources(self, sources: Sources, /) -> bytes:
        """Return the frame of what an answer is made from."""


class EventStream:
    """One client's stream: of events in ``frames``, or of somebody else's bytes.

    What comes before ``begin`` is kept; ``started`` says that there is something to begin with, so
    that a failure before the first event can still be an ordinary error response.
    """

    __slots__ = (
        "_after",
        "_around_bytes",
        "_asked_at",
        "_backlog",
        "_before",
        "_buffer_bytes",
        "_chunked",
        "_early",
        "_frames",
        "_keepalive_s",
        "_request",
        "_response",
        "_timer",
        "_transport",
        "_words_to",
        "_written",
        "started",
    )

    def __init__(
        self, request: web.Request, config: StreamConfig, frames: Frames | None = None
    ) -> None:
        self._transport: asyncio.Transport | None = None
        self._words_to: asyncio.Transport | None = None
        """The transport, while words need no more than to be put into a chunk."""
        before, after = frames.around if frames is not None else (b"", b"")
        self._before = before
        self._after = after + b"\r\n"
        self._around_bytes = len(before) + len(after)
        self._buffer_bytes = config.buffer_bytes
        self._written = False
        self._asked_at: float | None = time.monotonic()
        self._frames = frames
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._keepalive_s = config.keepalive_s
        self._response = web.StreamResponse(headers=HEADERS)
        self._response.headers["X-Request-ID"] = request[REQUEST_ID]
        self._chunked = request.version >= HttpVersion11
        self._early: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._backlog = 0

    def hear(self, event: Event) -> None:
        """Send an event; never waits, never raises."""
        transport = self._words_to
        if transport is None or not isinstance(event, bytes):
            self._hear_first(event)
            return
        if transport.is_closing():
            return
        size = self._around_bytes + len(event)
        head = HEADS[size] if size < LONGEST else b"%x\r\n" % size
        # As _put does, without the call: this is done for every word of every answer.
        transport.write(b"".join((head, self._before, event, self._after)))
        self._written = True
        if transport.get_write_buffer_size() > self._buffer_bytes:
            self._cut_off("buffer")

    def _hear_first(self, event: Event) -> None:
        """Send sources, or the first words; from then on words can go by the short way."""
        if isinstance(event, bytes):
            self._note_text()
            self.send(b"".join((self._before, event, self._after[:-2])))
            self._words_to = self._transport if self._chunked else None
        elif self._frames is not None:
            self.send(self._frames.sources(event))

    def take(self, piece: bytes) -> None:
        """Send somebody else's bytes."""
        self._note_text()
        self.send(piece)

    def forward(self, chunk: bytes) -> None:
        """Send more of them in the HTTP chunk that they came in."""
        transport = self._transport
        if transport is None or not self._chunked:
            self.send(chunk[chunk.index(b"\n") + 1 : -2])
        else:
            self._put(transport, chunk)

    def send(self, frames: bytes) -> None:
        """Send frames of the caller's own."""
        if not frames:
            return  # an empty chunk would end the body
        transport = self._transport
        if transport is None:
            self._keep(frames)
        else:
            self._put(transport, framed(frames) if self._chunked else frames)

    def _put(self, transport: asyncio.Transport, data: bytes) -> None:
        """Write to a client, unless it has left, as aiohttp has seen, too."""
        if transport.is_closing():
            return
        transport.write(data)
        self._written = True
        if transport.get_write_buffer_size() > self._buffer_bytes:
            self._cut_off("buffer")

    def _keep(self, frames: bytes) -> None:
        """Keep frames until the stream begins, and let it begin."""
        self._early.append(frames)
        if not self.started.done():
            self.started.set_result(None)

    def _note_text(self) -> None:
        """Take note of how long the first text took."""
        if self._asked_at is not None:
            FIRST_TEXT_SECONDS.observe(time.monotonic() - self._asked_at)
            self._asked_at = None

    async def begin(self, headers: Mapping[str, str]) -> web.StreamResponse:
        """Send the head, with ``headers`` of the caller's own, and what has been heard so far."""
        self._response.headers.update(headers)
        if self._chunked:
            self._response.enable_chunked_encoding()
        await self._response.prepare(self._request)
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError("the client has left")
        self._transport = transport
        STREAMS_OPEN.inc()
        self._arm()
        early, self._early = self._early, []
        if early:
            self.send(b"".join(early))
        return self._response

    async def end(self) -> web.StreamResponse:
        """End the response."""
        await self._response.write_eof()
        return self._response

    def close(self) -> None:
        """Stop the timer; call it however the stream ended."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            STREAMS_OPEN.dec()
            self._transport = self._words_to = None

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._keepalive_s, self._look)

    def _look(self) -> None:
        """Every ``keepalive_s``: is the reader reading, and does it know that we are here?"""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        backlog = transport.get_write_buffer_size()
        if backlog and backlog >= self._backlog > 0:
            self._cut_off("stalled")
            return
        self._backlog = backlog
        if not self._written:
            self.send(KEEP_ALIVE)
        self._written = False
        self._arm()

    def _cut_off(self, reason: str) -> None:
        STREAMS_CUT_OFF.labels(reason).inc()
        if self._transport is not None:
            self._transport.abort()

    def __repr__(self) -> str:
        state = "waiting" if self._transport is None else "open"
        return f"<EventStream {state}, {self._backlog} bytes behind>"
