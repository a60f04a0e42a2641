"""What ``/health`` said last: good for a moment, so that many probes cost one measurement."""

from __future__ import annotations

from ragserve.cache.prepared import Prepared, prepare_json
from ragserve.schema import HealthResponse

FRESH_S = 1.0


class Vitals:
    """The last state in which questions could be answered; another one is measured again."""

    def __init__(self) -> None:
        self._page: Prepared | None = None
        self._until = 0.0

    def keep(self, response: HealthResponse, now: float) -> None:
        """Remember a state just measured."""
        self._page = prepare_json(response) if response.status != "failing" else None
        self._until = now + FRESH_S

    def try_get(self, now: float) -> Prepared | None:
        """Return the page if it is fresh."""
        return self._page if now < self._until else None
