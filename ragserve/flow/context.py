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

    ``may_spend`` raises if whoever asks has no tokens of the language model left.

    ``cache`` is the value of ``Cache-Status``, once it is known; ``age_s`` that of ``Age`` for an
    answer that was kept.
    """

    __slots__ = ("age_s", "cache", "deadline", "may_spend", "principal", "tenant", "timings")

    def __init__(self, principal: Principal, deadline: Deadline) -> None:
        self.principal = principal
        self.tenant = principal.tenant
        self.deadline = deadline
        self.timings: dict[str, float] = {}
        self.may_spend: Callable[[], None] = _nothing
        self.cache = ""
        self.age_s: int | None = None

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
        if self.timings:
            headers["Server-Timing"] = self.server_timing()
        return headers

    def server_timing(self) -> str:
        """Return the ``Server-Timing`` header, in milliseconds."""
        return ", ".join(f"{name};dur={s * 1000:.2f}" for name, s in self.timings.items())


def _nothing() -> None:
    """Let everybody spend."""
