"""Connections: each offers a request to the express lane before aiohttp sees it.

This is the only module that knows aiohttp's insides. It keeps three promises:

- **One parser at a time.** The lane is asked only while aiohttp waits for a request on this
  connection, and only with bytes that are exactly one plain request. What the lane does not answer
  goes to aiohttp unchanged. After that the lane must know where the request ends: if that is not
  certain (several requests at once, a chunked body, anything not plain), aiohttp has the
  connection for the rest of its life.
- **Order.** aiohttp waits for a request only when all before it are answered and written.
- **Bounds.** One answer per call, so a busy client waits for its turn like all others; none while
  the client does not read; pipelines are left to aiohttp, which stops reading at 32 requests.

Many clients send head and body in two segments. The head of a request that the lane may answer is
therefore held until its body is here, at most ``HOLD_S``.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from ragserve.edge.express import HEAD_BYTES, parse_plain
from ragserve.edge.lane import Lane, Ticket
from ragserve.edge.watch import NEVER, Watch
from ragserve.errors import ConfigurationError
from ragserve.metrics import CLIENTS_DROPPED

OLDEST_AIOHTTP = (3, 14, 5)
HOLD_S = 1.0
"""A body that is not here by then is aiohttp's, which knows how long a body may take."""
HELD_BYTES = 16 * 1024
"""Longest request that is held."""
INSIDES = frozenset(
    "_waiter _messages _upgraded _paused _close _force_close _request_count _loop "
    "_next_keepalive_close_time _keepalive_timeout _reading_paused _buffer_paused".split()
)
"""Attributes of aiohttp's that are relied on."""


class Connection(RequestHandler):
    """One client's connection. ``_lane`` is None once the lane has lost track of it."""

    __slots__ = (
        "_address",
        "_backlog",
        "_due",
        "_head",
        "_held",
        "_holding",
        "_lane",
        "_ticket",
        "_watch",
        "head_since",
        "stuck_since",
    )

    def __init__(
        self, manager: web.Server, lane: Lane | None, watch: Watch | None = None, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._lane = lane
        self._watch = watch
        self._backlog = 0
        self.head_since = self.stuck_since = NEVER
        self._address = ""
        self._due = 0  # bytes of a request's body that aiohttp has yet to get
        self._held = b""  # the beginning of a request that `_ticket` allows
        self._head = b""
        self._ticket: Ticket | None = None
        self._holding: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if isinstance(peer, tuple) else ""
        self.head_since = monotonic()
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._lane = None
        self.head_since = self.stuck_since = NEVER
        self._unhold()
        if self._watch is not None:
            self._watch.forget(self._address)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to watch whether the client takes what waits for it."""
        self.stuck_since = monotonic()
        self._backlog = 0
        super().pause_writing()

    def resume_writing(self) -> None:
        """End that."""
        self.stuck_since = NEVER
        super().resume_writing()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on reading if that was paused: aiohttp asks for it with each piece of a body."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def note_backlog(self, now: float) -> None:
        """Look whether the client has taken something since the last look."""
        if self.transport is not None:
            backlog = self.transport.get_write_buffer_size()
            if backlog != self._backlog:
                self._backlog = backlog
                self.stuck_since = now

    def drop(self) -> None:
        """Close at once."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Count what aiohttp could not read as a request."""
        if isinstance(exc, LineTooLong):
            CLIENTS_DROPPED.labels("long").inc()
        elif isinstance(exc, HttpProcessingError):
            CLIENTS_DROPPED.labels("malformed").inc()
        return super().handle_error(request, status, exc, message)

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Leave out what no request was: anybody could fill the log with its tracebacks."""
        if not isinstance(options.get("exc_info"), HttpProcessingError):
            super().log_exception(*args, **options)

    def eof_received(self) -> None:
        """Give aiohttp what was held: more will not come."""
        if self._held:
            self._pass_held()
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        """Answer one plain request from the lane, or leave the bytes to aiohttp."""
        lane = self._lane
        # aiohttp calls this without data to make itself parse what it has kept.
        if lane is None or self._due or not data:
            self._pass_body(data)
            return
        if self._held:
            self._finish(lane, data)
            return
        end = data.find(b"\r\n\r\n", 0, HEAD_BYTES) + 4
        head = data[:end]
        tickets = lane.tickets
        ticket = tickets.young.get(head) or tickets.find(head) or self._inspect(lane, head, data)
        if ticket is None:
            return
        if ticket.total == len(data):
            if self._try_answer(lane, ticket, head, data[end:]):
                return
            if self._waiter is None and not self._messages:
                self._hold_a_turn(ticket, head, data)
            else:
                self._pass_request(data, ticket.total)
        elif len(data) < ticket.total <= HELD_BYTES and self._is_idle():
            self._hold(ticket, head, data)
        else:
            self._pass_request(data, ticket.total)

    def _is_idle(self) -> bool:
        """Return whether aiohttp waits for a request, and the client reads what it gets.

        Waiting means: no request is queued, parsed or handled, no answer unwritten.
        """
        waiter = self._waiter
        return (
            waiter is not None
            and not waiter.done()
            and not (self._paused or self._force_close or self._close or self._upgraded)
        )

    def _try_answer(self, lane: Lane, ticket: Ticket, head: bytes, body: bytes) -> bool:
        """Answer a whole request, if this is the time and the lane can."""
        if not self._is_idle():
            return False
        now = monotonic()
        answer = lane.answer(ticket, body, self._address, now)
        if answer is None:
            return False
        self.transport.write(answer)  # type: ignore[union-attr]  # set while connected
        self._next_keepalive_close_time = now + self._keepalive_timeout
        self.head_since = NEVER
        if head not in lane.tickets.young and ticket.plain.repeats:
            lane.tickets.remember(head, ticket)
        return True

    def _inspect(self, lane: Lane, head: bytes, data: bytes) -> Ticket | None:
        """Return a ticket for a head not seen before; without one, the bytes are passed on."""
        plain = parse_plain(head)
        if plain is None:
            self._lane = None
            self._feed(data)
            return None
        ticket = lane.ticket(plain)
        if ticket is None:
            self._pass_request(data, plain.size + plain.length)
        return ticket

    def _pass_request(self, data: bytes, total: int) -> None:
        """Give aiohttp a request of ``total`` bytes, or its beginning."""
        self._due = total - len(data)
        seen = self._request_count
        self._feed(data)
        if self._due < 0 or self._request_count != seen + 1:
            self._lane = None

    def _pass_body(self, data: bytes) -> None:
        """Give aiohttp more of a request that it has begun, or of what the lane cannot follow."""
        if self._lane is not None:
            self._due -= len(data)
            if self._due < 0:
                self._lane = None
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Give bytes to aiohttp; note whether the head of a request is still to come."""
        seen = self._request_count
        super().data_received(data)
        if self._request_count != seen:
            self.head_since = NEVER
        elif data and self.head_since == NEVER and not self._messages:
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                self.head_since = monotonic()

    def _hold(self, ticket: Ticket, head: bytes, data: bytes) -> None:
        """Wait for the rest of a request."""
        self._held = data
        self._ticket = ticket
        self._head = head
        # For aiohttp the connection is idle; it must not close it under a request.
        busy_until = self._loop.time() + 2 * HOLD_S
        self._next_keepalive_close_time = max(self._next_keepalive_close_time, busy_until)
        self._holding = self._loop.call_later(HOLD_S, self._pass_held)

    def _hold_a_turn(self, ticket: Ticket, head: bytes, data: bytes) -> None:
        """Look again when all that is ready to run has run.

        aiohttp takes a turn of the loop between an answer and its wait for the next request. Under
        load the next request is often here before, and would go the slow way; that makes turns
        longer, and soon all requests of all clients come too early.
        """
        self._held = data
        self._ticket = ticket
        self._head = head
        self._holding = self._loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        lane, ticket, head = self._lane, self._ticket, self._head
        data = self._unhold()
        if lane is None or ticket is None:
            return
        if not self._try_answer(lane, ticket, head, data[len(head) :]):
            self._pass_request(data, ticket.total)

    def _finish(self, lane: Lane, data: bytes) -> None:
        """Go on with a held request, whose next segment is ``data``.

        What aiohttp gets, it gets in the client's segments: it answers nothing in a segment in
        which it finds a fault.
        """
        ticket, head = self._ticket, self._head
        whole = self._held + data
        if (
            ticket is None
            or ticket.total != len(whole)
            or not self._try_answer(lane, ticket, head, whole[len(head) :])
        ):
            self._pass_held()
            self.data_received(data)
        else:
            self._unhold()

    def _pass_held(self) -> None:
        ticket = self._ticket
        data = self._unhold()
        if ticket is not None:
            self._pass_request(data, ticket.total)

    def _unhold(self) -> bytes:
        data = self._held
        self._held = self._head = b""
        self._ticket = None
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        return data


def check_aiohttp() -> str | None:
    """Return why the lane cannot work with this aiohttp, None if it can.

    Raise ``ConfigurationError`` for an aiohttp that should not be used at all.
    """
    version = tuple(int(part) for part in aiohttp.__version__.split(".")[:3] if part.isdigit())
    if version < OLDEST_AIOHTTP:
        oldest = ".".join(map(str, OLDEST_AIOHTTP))
        raise ConfigurationError(f"aiohttp {aiohttp.__version__}: {oldest} or newer is needed")
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise ConfigurationError(
            "aiohttp has no C parser: install its wheel and unset AIOHTTP_NO_EXTENSIONS"
        )
    missing = sorted(INSIDES - {name for kind in RequestHandler.__mro__ for name in vars(kind)})
    if missing:
        return f"aiohttp {aiohttp.__version__} has no {', '.join(missing)}"
    return None
