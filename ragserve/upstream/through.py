"""A stream that is passed on as it comes: nothing in it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from ragserve.flow.chunked import try_single


class Sink(Protocol):
    """Who a stream is passed on to."""

    def take(self, piece: bytes, /) -> None:
        """Take a piece; never raise."""

    def forward(self, chunk: bytes, /) -> None:
        """Take one that is not the first in the HTTP chunk that it came in; never raise."""


class Meter(Protocol):
    """Who counts what is passed on."""

    def hear(self, piece: bytes, /) -> None:
        """Take note of a piece."""


class Through:
    """A server's words on their way to ``sink``; ``begin`` is called before the first of them."""

    __slots__ = ("_begin", "_begun", "_meter", "_sink", "heard_at")

    def __init__(self, sink: Sink, meter: Meter, begin: Callable[[], None]) -> None:
        self._sink = sink
        self._meter = meter
        self._begin = begin
        self._begun = False
        self.heard_at = 0.0

    def hear(self, pieces: Sequence[bytes]) -> None:
        """Pass on what arrived together."""
        if not self._begun:
            self._begin()
            self._begun = True
        for piece in pieces:
            self._meter.hear(piece)
            self._sink.take(piece)

    def skim(self, chunk: bytes) -> bool:
        """Pass on what arrived, if it is one HTTP chunk: it need not be made anew."""
        piece = try_single(chunk)
        if piece is None:
            return False
        self.heard_at = monotonic()
        self._meter.hear(piece)
        self._sink.forward(chunk)
        return True

    def __repr__(self) -> str:
        return f"<Through to {self._sink!r}>"
