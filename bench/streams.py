"""Relayed streams: what a token costs, how much later it comes, what a stream holds.

``bench.upstream`` gives all contenders tokens at the same pace, ``bench.readers`` reads them.
Processor time is that of the contender between two moments while all streams are under way.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from bench import cores
from bench.contenders import Contender, Place, Up
from bench.relays import paced_model
from bench.results import Run

FIRST_MS = 100
MARGIN_S = 4.0
"""The last stream may begin, and the window end, so much later than planned."""
HEAD = (
    "| | CPU µs/token | × | broken | first token +ms p50 | p99 | between ms p99"
    " | slowest/median | KB/stream |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|"
)


class Streams(NamedTuple):
    """So many at once, begun within ``ramp_s``; each gets ``tokens``, ``interval_ms`` apart."""

    streams: int
    tokens: int
    interval_ms: int
    ramp_s: float
    same: bool = False
    """All ask the same."""

    @property
    def window_s(self) -> float:
        """Return for how long what a token costs is measured: while all are under way."""
        return self.tokens * self.interval_ms / 1000 - self.ramp_s - MARGIN_S


def measure_once(contender: Contender, load: Streams, place: Place, seed: int) -> Run:
    """Return one run: the readers' report, and what the contender used."""
    pace = {"tokens": load.tokens, "interval_ms": load.interval_ms, "first_ms": FIRST_MS}
    with paced_model(place, **pace) as there, contender.run(there) as up:
        return _read(up, load, seed)


def _read(up: Up, load: Streams, seed: int) -> Run:
    command = [sys.executable, "-m", "bench.readers", "--url", f"http://127.0.0.1:{up.port}"]
    command += ["--key", up.key, "--model", up.model, "--seed", str(seed)]
    command += ["--streams", str(load.streams), "--tokens", str(load.tokens)]
    command += ["--ramp-s", str(load.ramp_s), "--window-s", str(load.window_s)]
    command += ["--same"] if load.same else []
    before_mb = _memory_mb(up)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=cores.generate
    ) as readers:
        try:
            assert readers.stdout is not None
            if readers.stdout.readline() != "open\n":
                raise RuntimeError("the readers failed; see above")
            cpu_s = -_cpu_s(up)
            if readers.stdout.readline() != "close\n":
                raise RuntimeError("the readers failed; see above")
            cpu_s += _cpu_s(up)
            held_mb = _memory_mb(up)
            run: Run = json.loads(readers.stdout.readline())
        finally:
            readers.kill()
    run["cpu_us"] = round(cpu_s * 1e6 / max(1, run["window_tokens"]), 2)
    run["kb_per_stream"] = round((held_mb - before_mb) * 1024 / load.streams, 1)
    run["memory_mb"] = round(held_mb, 1)
    return run


def _cpu_s(up: Up) -> float:
    return sum(process.cpu_s() for process in up.processes)


def _memory_mb(up: Up) -> float:
    return sum(process.memory_mb() for process in up.processes)


def summary(runs: list[Run]) -> Run:
    """Return the median of each figure over the runs; what broke is added up."""

    def middle(figure: Callable[[Run], Any]) -> float:
        return round(median(figure(run) or 0.0 for run in runs), 3)

    return {
        "runs": len(runs),
        "streams": sum(run["streams"] for run in runs),
        "broken": sum(run["broken"] for run in runs),
        "steady": all(run["steady"] for run in runs),
        "cpu_us": middle(lambda run: run["cpu_us"]),
        "tokens_per_s": middle(lambda run: run["window_tokens"] / run["window_s"]),
        "first_ms": {
            name: middle(lambda run, name=name: run["first_ms"].get(name, 0.0) - FIRST_MS)
            for name in ("p50", "p99")
        },
        "between_ms": {
            name: middle(lambda run, name=name: run["between_ms"].get(name))
            for name in ("p50", "p99")
        },
        "slowest_to_median": middle(lambda run: run["slowest_to_median"]),
        "kb_per_stream": middle(lambda run: run["kb_per_stream"]),
        "memory_mb": middle(lambda run: run["memory_mb"]),
    }


def table(result: dict[str, Any]) -> str:
    """Return a scenario as Markdown, each contender compared with the first."""
    lines = [f"**{result['scenario']}**: {result['about']}.", "", HEAD]
    contenders = result["contenders"]
    first = next(iter(contenders.values()), None)
    for name, figures in contenders.items():
        ratio = figures["cpu_us"] / max(0.01, first["cpu_us"]) if first else 0.0
        lines.append(
            f"| {name} | {figures['cpu_us']:.1f} | {ratio:.2f}"
            f" | {figures['broken'] / max(1, figures['streams']):.1%}"
            f" | {figures['first_ms']['p50']:.1f} | {figures['first_ms']['p99']:.1f}"
            f" | {figures['between_ms']['p99']:.1f} | {figures['slowest_to_median']:.2f}"
            f" | {figures['kb_per_stream']:.0f} |"
        )
    lines += [
        f"| {name} | not run: {reason} | | | | | | | |"
        for name, reason in result["not_run"].items()
    ]
    return "\n".join(lines)
