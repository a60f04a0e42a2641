"""The load generator: users who ask, wait and think; or requests that come at a rate.

Latencies are counted from the moment a request was *due*: one that had to wait because the server
kept the generator busy has waited, and its wait is measured (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator

from hdrh.histogram import HdrHistogram

from bench.connection import Connection

LONGEST_US = 60_000_000
CONNECT_TIMEOUT_S = 10.0
CONNECTS_AT_ONCE = 100
REFUSALS = (429, 503)
REFUSED_S = 0.5
"""A user's pause after a refusal."""


class Measured:
    """What was seen: latencies in µs, time to the first byte of the body, statuses.

    ``good`` and ``refused`` are the latencies of what had status 2xx, and 429 or 503.

    ``answered`` counts all responses from the first connection to the last, warm-up included.
    """

    def __init__(self) -> None:
        self.latency = HdrHistogram(1, LONGEST_US, 3)
        self.good = HdrHistogram(1, LONGEST_US, 3)
        self.refused = HdrHistogram(1, LONGEST_US, 3)
        self.first = HdrHistogram(1, LONGEST_US, 3)
        self.statuses: Counter[int] = Counter()
        self.body_bytes = 0
        self.seconds = 0.0
        self.answered = 0

    def note(self, status: int, micros: int) -> None:
        """Take note of a response's latency."""
        self.latency.record_value(micros)
        if 200 <= status < 300:
            self.good.record_value(micros)
        elif status in REFUSALS:
            self.refused.record_value(micros)

    def report(self) -> dict[str, object]:
        """Return the figures: milliseconds, requests per second, share of errors."""
        answers = sum(self.statuses.values())
        errors = sum(n for status, n in self.statuses.items() if not 200 <= status < 300)
        return {
            "requests": answers,
            "answered": self.answered,
            "requests_per_s": round(answers / self.seconds, 1) if self.seconds else 0.0,
            "errors": errors,
            "error_share": round(errors / answers, 6) if answers else 0.0,
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "body_bytes": self.body_bytes,
            "seconds": round(self.seconds, 3),
            "latency_ms": percentiles(self.latency),
            "answered_ms": percentiles(self.good),
            "refused_ms": percentiles(self.refused),
            "first_byte_ms": percentiles(self.first),
        }


def percentiles(histogram: HdrHistogram) -> dict[str, float]:
    """Return what is usually asked of a histogram, in milliseconds."""
    if histogram.get_total_count() == 0:
        return {}
    return {
        "p50": round(histogram.get_value_at_percentile(50) / 1000, 3),
        "p95": round(histogram.get_value_at_percentile(95) / 1000, 3),
        "p99": round(histogram.get_value_at_percentile(99) / 1000, 3),
        "max": round(histogram.get_max_value() / 1000, 3),
    }


class Generator:
    """Puts load on ``host:port`` with what ``requests`` yields, the next one each time."""

    def __init__(self, host: str, port: int, requests: Iterator[bytes]) -> None:
        self._host = host
        self._port = port
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._measured: Measured | None = None
        self._answered = 0
        self._stopped = False

    async def users(
        self, count: int, *, think_s: float, warm_up_s: float, seconds: float, seed: int = 1
    ) -> Measured:
        """Let ``count`` users ask in turn, each on its own connection (closed loop)."""
        spread = random.Random(seed)
        gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def user() -> None:
            connection: Connection | None = None
            due = time.monotonic() + spread.random() * think_s
            while not self._stopped:
                await self._until(due)
                if connection is None or not connection.is_open:
                    connection = await self._connect(gate)
                status = 0 if connection is None else await self._ask(connection, due)
                due = time.monotonic() + think_s * (0.5 + spread.random())
                if connection is None:
                    due += 0.1
                elif status in REFUSALS:
                    due += REFUSED_S  # who is told to come back later does not ask on and on
            if connection is not None:
                connection.close()

        return await self._measure([user() for _ in range(count)], warm_up_s, seconds)

    async def rate(
        self,
        per_s: float,
        *,
        connections: int,
        warm_up_s: float,
        seconds: float,
        seed: int = 1,
    ) -> Measured:
        """Let requests come at random with ``per_s`` on average (open loop, Poisson)."""
        arrivals = random.Random(seed)
        gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
        due = time.monotonic()

        def next_due() -> float:
            nonlocal due
            due += arrivals.expovariate(per_s)
            return due

        async def lane() -> None:
            connection: Connection | None = None
            while not self._stopped:
                at = next_due()
                await self._until(at)
                if connection is None or not connection.is_open:
                    connection = await self._connect(gate)
                if connection is not None:
                    await self._ask(connection, at)
            if connection is not None:
                connection.close()

        return await self._measure([lane() for _ in range(connections)], warm_up_s, seconds)

    async def _measure(self, users: list, warm_up_s: float, seconds: float) -> Measured:
        tasks = [asyncio.create_task(user) for user in users]
        await asyncio.sleep(warm_up_s)
        measured = self._measured = Measured()
        began = time.monotonic()
        await asyncio.sleep(seconds)
        measured.seconds = time.monotonic() - began
        self._measured = None
        self._stopped = True
        _, late = await asyncio.wait(tasks, timeout=CONNECT_TIMEOUT_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        measured.answered = self._answered
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return measured

    async def _until(self, due: float) -> None:
        delay = due - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)

    async def _connect(self, gate: asyncio.Semaphore) -> Connection | None:
        try:
            async with gate, asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await self._loop.create_connection(
                    Connection, self._host, self._port
                )
        except (OSError, TimeoutError):
            self._count(0)
            return None
        return connection

    async def _ask(self, connection: Connection, due: float) -> int:
        """Ask and return the status."""
        done: asyncio.Future[int] = self._loop.create_future()
        clock = time.monotonic

        def first() -> None:
            if self._measured is not None:
                self._measured.first.record_value(_micros(clock() - due))

        def answered(status: int, body_bytes: int, keep: bool) -> None:
            self._answered += 1
            if self._measured is not None:
                self._count(status)
                self._measured.note(status, _micros(clock() - due))
                self._measured.body_bytes += body_bytes
            if not keep:
                connection.close()
            if not done.done():
                done.set_result(status)

        connection.send(next(self._requests), answered, first)
        return await done

    def _count(self, status: int) -> None:
        if self._measured is not None:
            self._measured.statuses[status] += 1


def _micros(seconds: float) -> int:
    return min(LONGEST_US, max(1, round(seconds * 1_000_000)))
