"""The host from outside: any worker speaks for all, and counters outlive who counted."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from ragserve.cli.status import Line
from tests.e2e.conftest import ServerProcess, ragserve, running

Counters = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(server: ServerProcess) -> tuple[Counters, dict[str, float]]:
    """Return counters and histograms, and ragserve_worker_up by worker, over a new connection."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"{server.url}/metrics") as response,
    ):
        text = await response.text()
    counters: Counters = {}
    up: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if family.name == "ragserve_worker_up":
                up[sample.labels["worker"]] = sample.value
            elif family.type in ("counter", "histogram"):
                counters[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return counters, up


async def scrape_with(server: ServerProcess, up: dict[str, float]) -> Counters:
    """Scrape until just those are up: on a busy machine one may answer too late for a scrape."""
    async with asyncio.timeout(30):
        counters, seen = await scrape(server)
        while seen != up:
            counters, seen = await scrape(server)
    return counters


async def test_counters_never_fall(data_dir: Path) -> None:
    """Ten scrapes around each of a kill -9, a reload and a hang: no counter of the host falls."""
    async with running(data_dir, "--workers", "2") as server:
        await server.event("worker_ready", count=2)
        before = await scrape_with(server, {"0": 1.0, "1": 1.0, "ingester": 1.0})
        up: dict[str, float] = {}

        async def check(times: int = 10) -> None:
            nonlocal before, up
            for _ in range(times):
                after, up = await scrape(server)
                fallen = {key: (n, after.get(key)) for key, n in before.items()}
                assert all(now is not None and now >= was for was, now in fallen.values()), fallen
                before = after

        await check()
        victim = next(e["pid"] for e in server.events if e["event"] == "worker_ready")
        os.kill(victim, signal.SIGKILL)
        await check()
        await server.event("worker_ready", count=3)
        server.process.send_signal(signal.SIGHUP)
        await check()
        await server.event("worker_ready", count=5)
        await server.event("ingest_ready", count=2)
        await check()
        assert up.keys() >= {"0", "1", "ingester"}
        sums = [n for (name, _), n in before.items() if name == "ragserve_scrape_seconds_count"]
        assert sum(sums) >= 30
        await server.event("worker_stopped", count=2)
        await server.event("ingest_stopped")
        await check(1)
        lives = {
            process: [
                before[f"ragserve_process_{what}_total", (("process", process),)]
                for what in ("starts", "stops")
            ]
            for process in ("worker", "ingester")
        }
        # Two of the workers live, two were replaced, and one has died.
        assert lives == {"worker": [5, 2], "ingester": [2, 1]}


async def test_a_hung_worker_shows_as_down(data_dir: Path) -> None:
    """The scrape and /health of its sibling say which worker does not answer."""
    async with running(data_dir, "--workers", "2") as server:
        await server.event("worker_ready", count=2)
        everybody = [("0", "ready"), ("1", "ready"), ("ingester", "ready")]
        async with asyncio.timeout(30):
            _, health = await server.call("GET", "/health")
            while [(one["worker"], one["state"]) for one in health["workers"]] != everybody:
                _, health = await server.call("GET", "/health")
        ingester = health["workers"][2]["pid"]
        # Of the three, the one whose silence costs no request.
        os.kill(ingester, signal.SIGSTOP)
        try:
            await scrape_with(server, {"0": 1.0, "1": 1.0, "ingester": 0.0})
            # What /health says may be a second old.
            async with asyncio.timeout(30):
                while health["workers"][2]["state"] == "ready":
                    _, health = await server.call("GET", "/health")
        finally:
            os.kill(ingester, signal.SIGCONT)
        assert health["workers"][2]["state"] == "unreachable"
        assert health["status"] == "degraded"


async def test_status_lists_the_processes(data_dir: Path) -> None:
    """`ragserve status` shows every process from the run directory; without one it says so."""
    async with running(data_dir, "--workers", "2") as server:
        await server.event("worker_ready", count=2)
        done = await asyncio.to_thread(ragserve, data_dir, "status", "--json")
        lines = msgspec.json.decode(done.stdout, type=list[Line])
        assert [line.worker for line in lines] == ["0", "1", "ingester"]
        pids = {e["child"]: e["pid"] for e in server.events if e["event"] == "child_started"}
        assert [line.pid for line in lines] == list(pids.values())
        assert {line.state for line in lines} == {"ready"}
        assert all((line.rss_bytes or 0) > 2**20 for line in lines)
        assert all(line.uptime_s == round(line.uptime_s, 1) for line in lines)
        table = (await asyncio.to_thread(ragserve, data_dir, "status")).stdout.splitlines()
        assert len(table) == 4
        assert table[0].split()[:4] == ["worker", "version", "core", "pid"]
        assert str(lines[0].pid) in table[1]
    done = await asyncio.to_thread(ragserve, data_dir, "status")
    assert (done.returncode, done.stderr) == (75, f"nothing runs here ({data_dir / 'run'})\n")
