"""Does a cache ever give a wrong answer? Questions while their documents change all the time.

    python -m bench.correctness --url http://127.0.0.1:8080 --questions 100000

In several collections stand gauges, a document each, that are set to a new number again and again,
while clients ask for their readings. An answer is *stale* if a newer number had been acknowledged,
searchable, more than a second before the question was sent; it is *foreign* if it comes from
another collection or gauge. Both must be 0. Ask a server of several workers; with Redis, too.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable

import aiohttp
import msgspec

COLLECTIONS = ("berlin", "oslo", "lisbon")
MODES = ("hybrid", "lexical")
"""Passages of the one come from the database, those of the other from the index."""
BOUND_S = 1.0
_READING = re.compile(r"Gauge (\d+) of (\w+) reads (\d+)\.")


class Gauge:
    """A document of one number: what was acknowledged when, oldest first."""

    def __init__(self, collection: str, number: int) -> None:
        self.collection = collection
        self.number = number
        self.submitted = 0
        self.acknowledged: list[tuple[float, int]] = []

    def document(self, reading: int) -> dict[str, object]:
        """Return the document that says ``reading``."""
        return {
            "id": f"gauge-{self.number}",
            "text": f"Gauge {self.number} of {self.collection} reads {reading}.",
            "metadata": {"gauge": self.number},
        }

    def question(self, mode: str) -> dict[str, object]:
        """Return what a client asks."""
        return {
            "query": f"What does gauge {self.number} read?",
            "collection": self.collection,
            "mode": mode,
            "filter": {"gauge": self.number},
        }

    def oldest_allowed(self, asked_at: float) -> int:
        """Return the reading that an answer to a question of that time may not be older than."""
        return next(
            (value for at, value in reversed(self.acknowledged) if at <= asked_at - BOUND_S), 0
        )


class Report(msgspec.Struct):
    """What was seen. ``statuses`` counts values of Cache-Status up to their details."""

    questions: int = 0
    changes: int = 0
    stale: int = 0
    foreign: int = 0
    errors: int = 0
    statuses: Counter[str] = msgspec.field(default_factory=Counter)
    examples: list[str] = msgspec.field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Return how many answers were wrong."""
        return self.stale + self.foreign + self.errors

    def note(self, example: str) -> None:
        """Keep the first few examples of what is wrong."""
        if len(self.examples) < 10:
            self.examples.append(example)


class Run:
    """One run against a server; a connection for every question, so that all workers are asked."""

    def __init__(self, url: str, gauges: int, seed: int) -> None:
        self._url = url
        self._rng = random.Random(seed)
        self._gauges = [Gauge(name, number) for name in COLLECTIONS for number in range(gauges)]
        # Some are asked for, and changed, far more often than others.
        self._weights = [1.0 / (1 + gauge.number) for gauge in self._gauges]
        self.report = Report()

    async def run(self, questions: int, changes: int, clients: int) -> Report:
        """Ask while a writer changes what is asked for, so many questions and changes at least."""

        def enough() -> bool:
            return self.report.questions >= questions and self.report.changes >= changes

        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(self._url, connector=connector) as session:
            for name in COLLECTIONS:
                await self._set(session, [g for g in self._gauges if g.collection == name])
            writer = asyncio.create_task(self._write(session))
            try:
                await asyncio.gather(*(self._ask_until(session, enough) for _ in range(clients)))
            finally:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        return self.report

    async def _write(self, session: aiohttp.ClientSession) -> None:
        while True:
            (gauge,) = self._rng.choices(self._gauges, self._weights)
            await self._set(session, [gauge])

    async def _set(self, session: aiohttp.ClientSession, gauges: list[Gauge]) -> None:
        """Raise the readings of gauges of one collection, and wait until that is searchable."""
        for gauge in gauges:
            gauge.submitted += 1
        body = {
            "collection": gauges[0].collection,
            "documents": [gauge.document(gauge.submitted) for gauge in gauges],
        }
        async with session.post("/v1/documents?wait=60", json=body) as response:
            answer = await response.json()
            if response.status != 200:
                raise RuntimeError(f"upload: {response.status} {answer}")
        now = time.monotonic()
        for gauge in gauges:
            gauge.acknowledged.append((now, gauge.submitted))
        self.report.changes += len(gauges)

    async def _ask_until(self, session: aiohttp.ClientSession, enough: Callable[[], bool]) -> None:
        while not enough():
            (gauge,) = self._rng.choices(self._gauges, self._weights)
            await self._ask(session, gauge)

    async def _ask(self, session: aiohttp.ClientSession, gauge: Gauge) -> None:
        report = self.report
        report.questions += 1
        asked_at = time.monotonic()
        oldest = gauge.oldest_allowed(asked_at)
        async with session.post(
            "/v1/query", json=gauge.question(self._rng.choice(MODES))
        ) as response:
            answer = await response.json()
            status = response.headers.get("Cache-Status", "none")
        report.statuses[status.partition("; ttl")[0]] += 1
        said = _READING.search(answer.get("answer", ""))
        if said is None:
            report.errors += 1
            report.note(f"{gauge.collection} {gauge.number}: {response.status} {answer}")
            return
        number, collection, reading = int(said[1]), said[2], int(said[3])
        if (collection, number) != (gauge.collection, gauge.number):
            report.foreign += 1
            report.note(f"asked {gauge.collection} {gauge.number}, {said[0]!r} ({status})")
        elif reading < oldest:
            report.stale += 1
            report.note(f"{said[0]!r}, but {oldest} a second before ({status})")


def main() -> int:
    """Run, print, and return 1 if any answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--questions", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--gauges", type=int, default=10, help="per collection")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    run = Run(options.url, options.gauges, options.seed)
    report = asyncio.run(run.run(options.questions, options.changes, options.clients))
    print(f"{report.questions} questions, {report.changes} changes", end=" ")
    print(f"in {time.monotonic() - start:.0f} s")
    for status, count in report.statuses.most_common():
        print(f"  {count:8} {status}")
    print(f"stale {report.stale}, foreign {report.foreign}, errors {report.errors}")
    for example in report.examples:
        print(f"  {example}")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
