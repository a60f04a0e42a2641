"""What a request carries through its stages: who asks, until when, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ragserve.flow.deadline import Deadline
from ragserve.flow.principal import Principal
from ragserve.metrics import STAGE_SECONDS
from ragserve.tracing import span


class Context:
    """One request's principal, deadline and timings (stage to seconds).

    ``remarks`` say what became of a stage that did not go as usual. ``due`` is until when whoever
    asked first wants the answer: later than that it is of use to others only, who may not exist.

    ``may_spend`` raises if whoever asks has no tokens of the language model left; ``spend`` counts
    those that were taken for them, be it after they have left.

    ``cache`` is the value of ``Cache-Status``, once it is known; ``age_s`` that of ``Age`` for an
    answer that was kept.
    """

    __slots__ = (
        "age_s",
        "cache",
        "deadline",
        "due",
        "may_spend",
        "principal",
        "remarks",
        "spend",
        "tenant",
        "timings",
    )

    def __init__(self, principal: Principal, deadline: Deadline) -> None:
        self.principal = principal
        self.tenant = principal.tenant
        self.deadline = deadline
        self.due = deadline
        self.timings: dict[str, float] = {}
        self.remarks: dict[str, str] = {}
        self.may_spend: Callable[[], None] = _nothing
        self.spend: Callable[[int], None] = _for_nothing
        self.cache = ""
        self.age_s: int | None = None

    def ahead_of(self, asker: Context) -> None:
        """Work for ``asker``: by its time, at its cost, its timings and remarks for it to see."""
        self.due = asker.deadline
        self.spend = asker.spend
        self.timings, self.remarks = asker.timings, asker.remarks

    def due_s(self, now: float) -> float:
        """Return how many seconds remain for those who wait."""
        return min(self.due.remaining_s(now), self.deadline.remaining_s(now))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Refuse to begin past the deadline; observe how long the stage takes."""
        start = time.monotonic()
        self.deadline.check(start, name)
        try:
            with span(name):
                yield
        finally:
            seconds = time.monotonic() - start
            self.timings[name] = self.timings.get(name, 0.0) + seconds
            STAGE_SECONDS.labels(name).observe(seconds)

    def headers(self) -> dict[str, str]:
        """Return what the response's head says of how the answer came about."""
        headers = {}
        if self.cache:
            headers["Cache-Status"] = self.cache
        if self.age_s is not None:
            headers["Age"] = str(self.age_s)
        if self.timings or self.remarks:
            headers["Server-Timing"] = self.server_timing()
        return headers

    def server_timing(self) -> str:
        """Return the ``Server-Timing`` header, in milliseconds and with remarks as ``desc``."""
        entries = []
        for name in {**self.timings, **self.remarks}:
            entry = name
            if name in self.remarks:
                entry += f';desc="{self.remarks[name]}"'
            if name in self.timings:
                entry += f";dur={self.timings[name] * 1000:.2f}"
            entries.append(entry)
        return ", ".join(entries)


def _nothing() -> None:
    """Let everybody spend."""


def _for_nothing(_tokens: int) -> None:
    """Let nobody pay."""
