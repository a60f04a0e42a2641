"""What a worker costs and brings: ``python -m bench.startup``.

Starts the server with one worker and with two, in turns, and reports the time from the command to
readiness, the memory of each process, and requests/s with the generator on the same cores (wrk, if
it is there). Memory is resident (RSS), a fair share of it (PSS: what n processes map is counted to
1/n each), and private to the process (USS): the last is what one more worker adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from bench import wrk
from bench.contenders import HANDBOOK, KEY, RAGSERVE_COLLECTION
from bench.process import Started, free_port, started
from bench.questions import QUESTIONS
from bench.results import environment, write

CONNECTIONS = 64
CORES = os.sched_getaffinity(0)
PROCESSES = ("supervisor", "ingester", "worker 1", "worker 2")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        data = Path(directory, "data")
        ingest = [sys.executable, "-m", "ragserve", "ingest", str(HANDBOOK)]
        subprocess.run(
            [*ingest, "--data-dir", str(data)], check=True, capture_output=True, timeout=300
        )
        runs: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
        for _ in range(arguments.rounds):
            for workers, made in runs.items():
                made.append(measure(workers, data, arguments.seconds))
                print(json.dumps(made[-1]), file=sys.stderr)
    print(table(runs))
    result = {"scenario": "startup", "environment": environment(), "runs": runs}
    print(f"written: {write('startup', result)}")


def measure(workers: int, data: Path, seconds: float) -> dict[str, Any]:
    """Return one start's figures: seconds, MB of each process, requests/s."""
    port = free_port()
    command = [sys.executable, "-m", "ragserve", "serve", "--port", str(port)]
    command += ["--workers", str(workers), "--data-dir", str(data)]
    env = {"RAGSERVE_LOG__ACCESS": "false"}
    begun = time.monotonic()
    with started(command, cores=CORES, log=data.parent / "log", env=env) as server:
        server.wait_ready(f"http://127.0.0.1:{port}/ready", pause_s=0.01)
        figures: dict[str, Any] = {"workers": workers, "ready_s": time.monotonic() - begun}
        if wrk.missing() is None:
            generator = wrk.Wrk(
                QUESTIONS,
                collection=RAGSERVE_COLLECTION,
                zipf=1.0,
                key=KEY,
                threads=1,
                pin=lambda: os.sched_setaffinity(0, CORES),
            )
            figures["requests_per_s"] = generator.run_warm(port, CONNECTIONS, seconds)[
                "requests_per_s"
            ]
        figures["memory_mb"] = memory(server)
    return figures


def memory(server: Started) -> dict[str, dict[str, float]]:
    """Return MB by process, see the module's first lines."""
    found: dict[str, dict[str, float]] = {}
    for process in server.family():
        arguments = process.cmdline()
        kind = next((one for one in ("worker", "ingester", "serve") if one in arguments), None)
        if kind is None:
            continue  # PostgreSQL's
        number = sum(name.startswith("worker") for name in found) + 1
        name = {"serve": "supervisor", "worker": f"worker {number}"}.get(kind, kind)
        held = process.memory_full_info()
        found[name] = {
            unit: round(getattr(held, unit) / 1024**2, 1) for unit in ("rss", "pss", "uss")
        }
    return found


def table(runs: dict[int, list[dict[str, Any]]]) -> str:
    """Return medians as Markdown."""
    lines = ["| workers | ready after s | requests/s |", "|---:|---:|---:|"]
    for workers, made in runs.items():
        rates = [run["requests_per_s"] for run in made if "requests_per_s" in run]
        rate = f"{median(rates):,.0f}" if rates else f"not run: {wrk.missing()}"
        lines.append(f"| {workers} | {median(run['ready_s'] for run in made):.2f} | {rate} |")
    lines += ["", "| process, of two workers' host | RSS MB | PSS MB | USS MB |"]
    lines.append("|---|---:|---:|---:|")
    for name in PROCESSES:
        held = [run["memory_mb"][name] for run in runs[2] if name in run["memory_mb"]]
        if held:
            each = (f"{median(one[unit] for one in held):.0f}" for unit in ("rss", "pss", "uss"))
            lines.append(f"| {name} | {' | '.join(each)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
