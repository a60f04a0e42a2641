"""What clients see while Redis fails: ``python -m bench.faults``.

Questions come at a fixed rate, whether or not the server keeps up. Every answer is in Redis and
none in the server's memory. In each phase after the first Redis is killed, stopped for the whole
phase, or slowed (stopped four fifths of the time); then it is back.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from bench import cores
from bench.contenders import RAGSERVE_COLLECTION, Place, Up, on_redis, redis
from bench.measure import ask_all
from bench.process import Started, free_port
from bench.questions import QUESTIONS
from bench.results import environment, phases_table, write

SLOW_S = (0.08, 0.02)
"""Stopped and running, in turns."""
SETTLE_S = 6.0
"""Between phases: for connections to come back."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", type=float, default=150.0, help="questions a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        phases = measure(Path(directory), arguments.rate, arguments.seconds)
    result = {
        "scenario": "redis-faults",
        "rate": arguments.rate,
        "environment": environment(),
        "phases": phases,
    }
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('redis-faults', result)}")


def measure(directory: Path, rate: float, seconds: float) -> dict[str, dict[str, Any]]:
    """Return what clients saw in each phase."""
    place = Place(cores.SERVERS, directory, directory / "answers.jsonl")
    port = free_port()
    found: dict[str, dict[str, Any]] = {}

    def phase(name: str, fault: AbstractContextManager[object]) -> None:
        with fault:
            found[name] = _load(up, rate, seconds)
        print(name, json.dumps(found[name]), file=sys.stderr, flush=True)
        time.sleep(SETTLE_S)

    with redis(directory, port) as process, on_redis("ragserve", port).run(place) as up:
        for _ in ask_all(up):
            pass
        phase("all is well", nullcontext())
        phase("Redis stopped", _stopped(process))
        phase("Redis slow", _slow(process))
        process.send(signal.SIGKILL)
        phase("Redis killed", nullcontext())
    with redis(directory, port), on_redis("ragserve", port).run(place) as up:
        for _ in ask_all(up):
            pass
        phase("Redis is back", nullcontext())
    return found


def _load(up: Up, rate: float, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.load", str(QUESTIONS), "--key", up.key]
    command += ["--url", f"http://127.0.0.1:{up.port}", "--collection", RAGSERVE_COLLECTION]
    command += ["--rate", str(rate), "--seconds", str(seconds), "--warm-up", "4"]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        timeout=seconds + 120,
        preexec_fn=cores.generate,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    return {name: report[name] for name in ("requests_per_s", "statuses", "errors", "latency_ms")}


@contextmanager
def _stopped(process: Started) -> Iterator[None]:
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


@contextmanager
def _slow(process: Started) -> Iterator[None]:
    done = threading.Event()

    def torment() -> None:
        stopped_s, running_s = SLOW_S
        while not done.is_set():
            process.send(signal.SIGSTOP)
            time.sleep(stopped_s)
            process.send(signal.SIGCONT)
            time.sleep(running_s)

    thread = threading.Thread(target=torment)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def table(result: dict[str, Any]) -> str:
    """Return the phases as Markdown."""
    about = f"**redis-faults**: {result['rate']:.0f} questions a second, all answers in Redis."
    return phases_table(about, result["phases"])


if __name__ == "__main__":
    main()
