"""Rolling reloads under load: ``python -m bench.reloads --requests 10000000``.

wrk asks on keep-alive connections without a pause while one reload follows the other: each replaces
the ingest process and all workers. What is not answered with 200 is counted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench import cores
from bench.contenders import RAGSERVE_COLLECTION, Place, Up, ragserve
from bench.measure import ask_all
from bench.process import command_of
from bench.questions import QUESTIONS
from bench.results import environment, write
from bench.wrk import Wrk, missing

WORKERS = 2
CONNECTIONS = 100
RUN_S = 20.0
RELOAD_S = 60.0
LOOK_S = 0.2


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000_000)
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    if absent := missing():
        parser.error(absent)
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(set(cores.AVAILABLE), Path(directory), Path(directory, "answers.jsonl"))
        with ragserve("ragserve", WORKERS).run(place) as up:
            for _ in ask_all(up):
                pass
            figures = measure(up, arguments.requests)
    result = {"scenario": "reloads", "environment": environment(), **figures}
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('reloads', result)}")
    return 1 if figures["errors"] else 0


def measure(up: Up, least: int) -> dict[str, Any]:
    """Return the counts of at least so many requests."""
    generator = Wrk(
        QUESTIONS,
        collection=RAGSERVE_COLLECTION,
        zipf=1.0,
        key=up.key,
        threads=1,
        pin=cores.generate,
    )
    reloading = _Reloading(up)
    reloading.start()
    requests = errors = 0
    seconds = 0.0
    try:
        while requests < least and reloading.is_alive():
            report = generator.run(up.port, CONNECTIONS, RUN_S)
            requests += report["requests"]
            errors += report["errors"]
            seconds += report["seconds"]
            print(f"{requests:,} requests, {reloading.count} reloads, {errors} errors")
            sys.stdout.flush()
    finally:
        reloading.end()
    return {
        "requests": requests,
        "requests_per_s": round(requests / seconds, 1),
        "reloads": reloading.count,
        "errors": errors,
    }


class _Reloading(threading.Thread):
    """One reload after the other. ``count`` is how many have been completed."""

    def __init__(self, up: Up) -> None:
        super().__init__(daemon=True)
        (self._server,) = up.processes
        self._over = threading.Event()
        self._failed: str | None = None
        self.count = 0

    def run(self) -> None:
        while not self._over.is_set():
            before = self._children()
            self._server.send(signal.SIGHUP)
            until = time.monotonic() + RELOAD_S
            while before & (now := self._children()) or len(now) < len(before):
                if time.monotonic() > until:
                    self._failed = f"reload {self.count + 1}: {before} to {now} in {RELOAD_S} s"
                    return
                time.sleep(LOOK_S)
            self.count += 1

    def end(self) -> None:
        """Let the last one be completed; raise ``RuntimeError`` if one was not."""
        self._over.set()
        self.join()
        if self._failed is not None:
            raise RuntimeError(self._failed)

    def _children(self) -> set[int]:
        """Return the process ids of the workers and the ingest process."""
        roles = {"worker", "ingester"}
        return {one.pid for one in self._server.family() if roles & set(command_of(one))}


def table(result: dict[str, Any]) -> str:
    """Return the counts as Markdown."""
    return (
        f"**reloads**: {CONNECTIONS} connections ask without a pause while one rolling reload of"
        f" {WORKERS} workers, on all cores, follows the other.\n\n"
        "| requests | a second | reloads | not answered with 200 |\n"
        "|---:|---:|---:|---:|\n"
        f"| {result['requests']:,} | {result['requests_per_s']:,.0f} | {result['reloads']}"
        f" | {result['errors']} |"
    )


if __name__ == "__main__":
    sys.exit(main())
