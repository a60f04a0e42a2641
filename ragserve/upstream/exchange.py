"""One request's reply, as it comes: collected whole, or heard event by event.

Everything happens within the call that brings the bytes: no queue, no task, no future per event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from ragserve.upstream.failure import CallFailed, ClosedEarly
from ragserve.upstream.sse import EventParser, EventTooLarge

MAX_REPLY_BYTES = 64 * 1024**2
DONE = b"[DONE]"

Hear = Callable[[Sequence[bytes]], None]
"""Hears the data of all events that arrived together; may raise ``CallFailed``."""


class Skimmer(Protocol):
    """Takes what needs no parser. ``heard_at`` is when it last did, in monotonic seconds."""

    heard_at: float

    def skim(self, chunk: bytes, /) -> bool:
        """Return whether it has taken what arrived between two events for one HTTP chunk.

        Nobody else need hear of that one. It never raises.
        """


class Patience(msgspec.Struct, frozen=True):
    """How long a stream may be silent, in seconds: before its first event, and between two."""

    first_s: float
    between_s: float


class Exchange:
    """``done`` is the whole reply in the end; nothing, if its events have been heard.

    ``status`` is 0 until the head is there. Replies that are no event streams are collected, even
    if events were wanted: not every server streams. ``raw`` streams are heard in the pieces in
    which they arrive.

    ``skimmer`` is set while what arrives next may be offered to it before it is parsed.
    """

    __slots__ = (
        "_events",
        "_hear",
        "_heard_at",
        "_loop",
        "_offered",
        "_patience",
        "_raw",
        "_streams",
        "_timer",
        "_whole",
        "done",
        "headers",
        "skimmer",
        "status",
    )

    def __init__(
        self,
        hear: Hear | None = None,
        patience: Patience | None = None,
        *,
        skimmer: Skimmer | None = None,
        raw: bool = False,
    ) -> None:
        self.skimmer: Skimmer | None = None
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[bytes] = self._loop.create_future()
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._hear = hear
        self._patience = patience
        self._whole = bytearray()
        self._offered = skimmer
        self._raw = raw
        self._streams = False
        self._events = EventParser()
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start to lose patience."""
        if self._patience is not None:
            self._timer = self._loop.call_later(self._patience.first_s, self._look)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the head of the reply; names of headers are in lower case."""
        self.status, self.headers = status, headers
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            self.fail(CallFailed(f"content-encoding {encoding}, not asked for", "garbage"))
        kind = headers.get("content-type", "").lower()
        if self._hear is not None and status == 200 and kind.startswith("text/event-stream"):
            self._streams = True
        else:
            self._stop_timer()

    def body(self, data: bytes) -> None:
        """Take what has arrived of the body; ``skimmer`` is set if it ends between two events."""
        if self.done.done():
            return
        if not self._streams:
            self._whole += data
            if len(self._whole) > MAX_REPLY_BYTES:
                self.fail(CallFailed(f"a reply over {MAX_REPLY_BYTES} bytes", "size"))
            return
        try:
            events = [data] if self._raw else self._events.feed(data)
            if events:
                self._tell(events)
        except EventTooLarge as error:
            self.fail(CallFailed(str(error), "size"))
        except CallFailed as error:
            self.fail(error)
        if self._heard_at and not self.done.done() and (self._raw or self._events.between):
            self.skimmer = self._offered
        else:
            self.skimmer = None

    def end(self) -> None:
        """Take note that the reply is complete."""
        if not self.done.done():
            self.done.set_result(bytes(self._whole))
        self.close()

    def fail(self, error: CallFailed | ClosedEarly) -> None:
        """Take note that there will be no complete reply."""
        if not self.done.done():
            self.done.set_exception(error)
        self.close()

    def close(self) -> None:
        """Stop the timer; call it however the exchange ended."""
        self.skimmer = None
        self._stop_timer()
        if self.done.done() and not self.done.cancelled():
            self.done.exception()  # seen, should nobody wait any more

    def _tell(self, events: list[bytes]) -> None:
        first = not self._heard_at
        self._heard_at = self._loop.time()
        if first and self._patience is not None:
            self._stop_timer()
            self._timer = self._loop.call_later(self._patience.between_s, self._look)
        done = DONE in events
        if done:
            events = events[: events.index(DONE)]
        if events and self._hear is not None:
            self._hear(events)
        if done:
            self.end()

    def _look(self) -> None:
        """Is there something new since the last look?"""
        assert self._patience is not None  # noqa: S101 - there is a timer
        if not self._heard_at:
            text = f"nothing heard within {self._patience.first_s:g} s"
            self.fail(CallFailed(text, "timeout"))
            return
        heard_at = max(self._heard_at, self._offered.heard_at if self._offered else 0.0)
        due = heard_at + self._patience.between_s
        if self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._look)
            return
        text = f"silent for {self._patience.between_s:g} s in mid-stream"
        self.fail(CallFailed(text, "timeout"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        state = "done" if self.done.done() else f"status {self.status}" if self.status else "sent"
        return f"<Exchange {state}>"
