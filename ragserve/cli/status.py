"""``status``: the processes of this host, from the run directory; nothing is asked over HTTP."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click
import msgspec

from ragserve.config import Config
from ragserve.errors import EXIT_UNAVAILABLE
from ragserve.host.ledger import Ledger
from ragserve.host.members import run_directory
from ragserve.host.overview import Seen, look_around
from ragserve.host.totals import Families, value

SAMPLE_S = 1.0
PATIENCE_S = 2.0
"""Who starves on a busy machine answers late; who asks by hand would rather wait than be misled."""
WIDTH = 100
"""A line has so many characters; cut numbers are worse than a broken line."""


class Line(msgspec.Struct, frozen=True):
    """A process. Rates and lag are over ``SAMPLE_S``; None where it did not answer."""

    worker: str
    core: int | None
    pid: int
    state: str
    uptime_s: float
    version: str | None = None
    connections: int | None = None
    in_flight: int | None = None
    requests_per_s: float | None = None
    lag_ms: float | None = None
    rss_bytes: int | None = None


def run(config: Config, data_dir: Path, environ: dict[str, str], *, as_json: bool) -> int:
    """Print a line for each process; say so if there is none."""
    directory = run_directory(config.storage, data_dir, environ)
    lines = processes(directory)
    if as_json:
        click.echo(msgspec.json.encode(lines))
    elif lines:
        _print_table(lines)
    else:
        click.echo(f"nothing runs here ({directory})", err=True)
    return 0 if lines else EXIT_UNAVAILABLE


def processes(directory: Path) -> list[Line]:
    """Return a line for each process of a run directory, which need not be there."""
    return asyncio.run(_lines(directory)) if directory.is_dir() else []


async def _lines(directory: Path) -> list[Line]:
    ledger = Ledger(directory)
    seen = await look_around(directory, "report", timeout_s=PATIENCE_S)
    start = time.monotonic()
    _, before = ledger.read()
    if not seen:
        return []
    await asyncio.sleep(SAMPLE_S)
    seen = await look_around(directory, "report", timeout_s=PATIENCE_S)
    now = time.monotonic()
    _, after = ledger.read()
    return [
        _line(
            one, before.get(one.identity.id, ()), after.get(one.identity.id, ()), now - start, now
        )
        for one in seen
    ]


def _line(seen: Seen, before: Families, after: Families, seconds: float, now: float) -> Line:
    label, identity, state = seen
    uptime_s = round(now - identity.started, 1)
    if state is None:
        return Line(label, None, identity.pid, "unreachable", uptime_s)

    def growth(name: str) -> float:
        return value(after, name) - value(before, name)

    looks = growth("ragserve_event_loop_lag_seconds_count")
    lag_ms = growth("ragserve_event_loop_lag_seconds_sum") / looks * 1000 if looks else None
    return Line(
        worker=label,
        core=state.core,
        pid=identity.pid,
        state=state.phase,
        uptime_s=uptime_s,
        version=state.version,
        connections=int(value(after, "ragserve_worker_connections")),
        in_flight=int(value(after, "ragserve_http_requests_in_flight")),
        requests_per_s=round(growth("ragserve_http_requests_total") / seconds, 1),
        lag_ms=None if lag_ms is None else round(lag_ms, 2),
        rss_bytes=int(value(after, "ragserve_worker_resident_memory_bytes")),
    )


def _print_table(lines: list[Line]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("worker", "version", "core", "pid", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("uptime", "conns", "in flight", "req/s", "lag", "rss"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.worker,
            line.version or "–",
            _or_dash(line.core),
            str(line.pid),
            line.state,
            _duration(line.uptime_s),
            _or_dash(line.connections),
            _or_dash(line.in_flight),
            _or_dash(line.requests_per_s),
            _or_dash(line.lag_ms, " ms"),
            "–" if line.rss_bytes is None else f"{line.rss_bytes / 1e6:.0f} MB",
        )
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    console.print(table)


def _or_dash(value: float | None, unit: str = "") -> str:
    return "–" if value is None else f"{value:,}{unit}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hours:02}:{minutes:02}:{rest:02}"
