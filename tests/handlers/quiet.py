"""What a request may not leave behind: tasks, permits, flights, calls to models."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.conftest import Api

OTHERS = frozenset({"Event.wait", "RequestHandler.start", "wire.<locals>.serve"})
"""Tasks of the ingest process, of open connections, and of the tests' own servers."""


def tasks() -> Counter[str]:
    """Return how many tasks there are of each kind."""
    kinds = (task.get_coro().__qualname__ for task in asyncio.all_tasks())  # type: ignore[union-attr]
    return Counter(kind for kind in kinds if kind not in OTHERS)


class Quiet:
    """A server's state before a request; ``again`` waits until it is so again."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._tasks = tasks()

    def left_behind(self) -> list[str]:
        """Return what is there now and was not before."""
        services = self._api.services
        pipeline = services.pipeline
        found = list((tasks() - self._tasks).elements())
        found += [repr(gate) for gate in pipeline.entrance.gates if gate.used or gate.waiting]
        found += [
            repr(caching)
            for caching in (pipeline._questions, pipeline._searches)
            if len(caching._flights)
        ]
        if services.model is not None:
            members = services.model._upstream.members
            found += [repr(one) for one in members if "<Pool 0 busy" not in repr(one)]
        if services.in_flight.count:
            found.append(repr(services.in_flight))
        return found

    async def again(self) -> None:
        """Wait until nothing is left; fail with what is."""
        try:
            async with asyncio.timeout(30):
                while self.left_behind():  # noqa: ASYNC110 - all of it has no signal
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(self.left_behind()) from None
