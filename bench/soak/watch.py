"""The host over time: counters that must not fall, processes that must not grow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from statistics import median
from typing import Any, NamedTuple

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.soak.world import World

LOOK_S = 5.0
IDLE_GAUGES = (
    "ragserve_http_requests_in_flight",
    "ragserve_streams_open",
    "ragserve_gate_used",
    "ragserve_gate_waiting",
)
"""What must be 0 when nobody asks. The scrape itself is one request."""
SCRAPES = {"ragserve_http_requests_in_flight": 1.0}


class Look(NamedTuple):
    """A process at a time (monotonic seconds)."""

    at: float
    resident_mb: float
    descriptors: int
    threads: int


class Watch:
    """What was seen. ``fallen`` names counters that were lower than before."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._counters: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.looks: dict[str, list[Look]] = {}
        self.kept_mb: list[float] = []
        self.scrapes = 0
        self.scrapes_failed = 0
        self.fallen: list[str] = []

    async def run(self, over: asyncio.Event) -> None:
        """Look every few seconds."""
        timeout = aiohttp.ClientTimeout(total=LOOK_S)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            while not over.is_set():
                try:
                    await self._compare(session)
                except (aiohttp.ClientError, TimeoutError):
                    self.scrapes_failed += 1  # it may have met a worker that was killed
                self._look()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), LOOK_S)

    async def _compare(self, session: aiohttp.ClientSession) -> None:
        self.scrapes += 1
        for family in await self.scrape(session):
            if family.name == "ragserve_cache_bytes":
                held = sum(sample.value for sample in family.samples)
                self.kept_mb.append(held / 1024**2)
            if family.type not in ("counter", "histogram"):
                continue
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                before = self._counters.get(key, 0.0)
                # Sums of seconds are added up in another order each time.
                if sample.value < before * (1 - 1e-9):
                    self.fallen.append(f"{key}: {before} to {sample.value}")
                self._counters[key] = sample.value

    async def scrape(self, session: aiohttp.ClientSession) -> list[Any]:
        """Return the families of metrics of the host."""
        async with session.get(f"{self._world.url}/metrics") as response:
            response.raise_for_status()
            return list(text_string_to_metric_families(await response.text()))

    async def busy(self) -> dict[str, float]:
        """Return what is still under way, once nobody asks any more; empty if all is idle."""
        async with aiohttp.ClientSession() as session:
            families = {family.name: family for family in await self.scrape(session)}
        found = {
            name: sum(sample.value for sample in families[name].samples) - SCRAPES.get(name, 0.0)
            for name in IDLE_GAUGES
        }
        return {name: value for name, value in found.items() if value}

    def _look(self) -> None:
        now = time.monotonic()
        for name, process in self._world.processes().items():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                memory = process.memory_info().rss / 1024**2
                look = Look(now, memory, process.num_fds(), process.num_threads())
                self.looks.setdefault(name, []).append(look)

    def growth(self, least_s: float) -> dict[str, dict[str, list[float]]]:
        """Return medians of the quarters of each process's life that was at least ``least_s``."""
        found = {}
        for name, looks in self.looks.items():
            if looks[-1].at - looks[0].at < least_s:
                continue
            found[name] = {
                field: quarters([getattr(look, field) for look in looks])
                for field in ("resident_mb", "descriptors", "threads")
            }
        return found


def quarters(values: list[float]) -> list[float]:
    """Return the median of each quarter of a series."""
    size = max(1, len(values) // 4)
    parts = [values[at : at + size] for at in range(0, 4 * size, size)]
    return [round(median(part), 1) for part in parts if part]
