"""One computation, many listeners.

Whoever asks first starts a *flight*, a task of its own; whoever asks the same before it lands is
taken aboard and hears what it has published so far, then the rest. No request owns the
computation: one that is cancelled merely leaves, and the flight is cancelled with the last one.

What has been published is kept in a *past*: a list, or something smaller that tells late joiners
the same in fewer events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
E = TypeVar("E")
R = TypeVar("R")

Publish = Callable[[E], None]
Compute = Callable[["Flight[E, R]"], Coroutine[Any, Any, R]]


class Past(Protocol[E]):
    """The events so far, as who joins late shall hear them."""

    def append(self, event: E, /) -> None:
        """Add the newest event."""

    def clear(self) -> None:
        """Forget all."""

    def __iter__(self) -> Iterator[E]: ...

    def __len__(self) -> int: ...


class Flight(Generic[E, R]):
    """A computation under way: its ``past``, empty at first, and its result in the end."""

    __slots__ = ("_heard", "_listeners", "_task", "aboard", "past")

    def __init__(self, compute: Compute[E, R], past: Past[E]) -> None:
        self.past = past
        self.aboard = 0
        self._listeners: tuple[Publish[E], ...] = ()
        self._heard = False
        self._task = asyncio.create_task(compute(self))

    def publish(self, event: E) -> None:
        """Tell all who listen, and those who will join; called by the computation."""
        self.remember(event)
        self.tell(event)

    def remember(self, event: E) -> None:
        """Add to the past what is told by ``tell``, now or bit by bit while it grows there."""
        self.past.append(event)
        self._heard = self._heard or bool(self._listeners)

    def tell(self, event: E) -> None:
        """Tell those who listen what the past has."""
        for hear in self._listeners:
            hear(event)

    def retract(self) -> bool:
        """Forget what was published, if nobody has heard any of it; return whether that is so."""
        if not self._heard:
            self.past.clear()
        return not self._heard

    async def result(self) -> R:
        """Return what was computed, or raise what went wrong; being cancelled ends only the wait.

        Call it aboard, that is within ``Flights.join``.
        """
        return await asyncio.shield(self._task)

    def board(self, hear: Publish[E] | None) -> None:
        """Count one more who waits; ``hear`` gets the past events now and each new one at once.

        ``hear`` is called synchronously and must not raise.
        """
        self.aboard += 1
        if hear is not None:
            self._heard = self._heard or len(self.past) > 0
            for event in self.past:
                hear(event)
            self._listeners = (*self._listeners, hear)

    def leave(self, hear: Publish[E] | None) -> None:
        """Count one less."""
        self.aboard -= 1
        if hear is not None:
            at = self._listeners.index(hear)
            # A new one: several may leave while others are told.
            self._listeners = (*self._listeners[:at], *self._listeners[at + 1 :])

    def on_landing(self, call: Callable[[], None]) -> None:
        """Call back when the computation has ended, however it did."""

        def landed(task: asyncio.Task[R]) -> None:
            # Seen: with nobody aboard, nobody else looks. A task that was cancelled lets go of its
            # frames, which hold this flight and with it the task: only the collector would find it.
            with suppress(asyncio.CancelledError):
                task.exception()
            call()

        self._task.add_done_callback(landed)

    def cancel(self) -> None:
        """Stop computing."""
        self._task.cancel()

    def __repr__(self) -> str:
        return f"<Flight {self.aboard} aboard, {len(self.past)} events>"


class Flights(Generic[K, E, R]):
    """The flights under way, by what they compute; ``begin_past`` makes what each remembers."""

    def __init__(self, begin_past: Callable[[], Past[E]] = list) -> None:
        self._begin_past = begin_past
        self._under_way: dict[K, Flight[E, R]] = {}

    @contextmanager
    def join(
        self, key: K, compute: Compute[E, R], hear: Publish[E] | None = None
    ) -> Iterator[Flight[E, R]]:
        """Take the flight of ``key``, or start it with ``compute``, until the context ends."""
        flight = self._under_way.get(key)
        if flight is None:
            flight = self._under_way[key] = Flight(compute, self._begin_past())
            flight.on_landing(partial(self._remove, key, flight))
        flight.board(hear)
        try:
            yield flight
        finally:
            flight.leave(hear)
            if not flight.aboard:
                # At once, so that whoever asks next does not board what is being cancelled.
                self._remove(key, flight)
                flight.cancel()

    def __contains__(self, key: K) -> bool:
        return key in self._under_way

    def __len__(self) -> int:
        return len(self._under_way)

    def _remove(self, key: K, flight: Flight[E, R]) -> None:
        if self._under_way.get(key) is flight:
            del self._under_way[key]

    def __repr__(self) -> str:
        aboard = sum(flight.aboard for flight in self._under_way.values())
        return f"<Flights {len(self)} under way, {aboard} aboard>"
