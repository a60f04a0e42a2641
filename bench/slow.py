"""Slow clients beside ordinary ones: ``python -m bench.slow --count 10000``.

They open connections and send a byte of a request's head now and then, which never ends; whoever
is closed comes back. Reported is what ordinary users see without them and beside them.

The slow ones run in a process that gives way to the ordinary users’ (SCHED_IDLE): both share the
generators’ core, and what is measured is how long the server takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from bench import cores
from bench.contenders import RAGSERVE_COLLECTION, Place, Up
from bench.measure import ask_all
from bench.process import open_files
from bench.questions import QUESTIONS
from bench.results import environment, phases_table, write
from bench.scenarios import RAGSERVE

USERS = 200
THINK_S = 0.5
AT_ONCE = 200
BYTE_S = 3.0
SPARE_FILES = 500
SETTLE_S = 15.0
"""By then the first of them have been closed and are back."""
HEAD = b"POST /v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    open_files(arguments.count + SPARE_FILES)
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        with RAGSERVE.run(place) as up:
            for _ in ask_all(up):
                pass
            cores.generate()
            alone = _users(up, arguments.seconds)
            with tormentors(up.port, arguments.count):
                time.sleep(SETTLE_S)
                beside = _users(up, arguments.seconds)
    phases = {"alone": alone, f"beside {arguments.count:,} slow clients": beside}
    result = {"scenario": "slow", "environment": environment(), "phases": phases}
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('slow', result)}")


@contextlib.contextmanager
def tormentors(port: int, count: int) -> Iterator[None]:
    """Run ``count`` slow clients of ``port`` in a process of their own."""
    process = multiprocessing.get_context("spawn").Process(target=_torment, args=(port, count))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _torment(port: int, count: int) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    uvloop.run(_all_slow(port, count))


async def _all_slow(port: int, count: int) -> None:
    opening = asyncio.Semaphore(AT_ONCE)
    rng = random.Random(1)

    async def one() -> None:
        while True:
            with contextlib.suppress(OSError):
                async with opening:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=256)
                writer.write(HEAD)
                while not reader.at_eof():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(BYTE_S * (0.5 + rng.random())):
                            await reader.read(100)
                    writer.write(b"x")
                writer.close()

    await asyncio.gather(*(one() for _ in range(count)))


def _users(up: Up, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.load", str(QUESTIONS), "--key", up.key]
    command += ["--url", f"http://127.0.0.1:{up.port}", "--collection", RAGSERVE_COLLECTION]
    command += ["--users", str(USERS), "--think", str(THINK_S), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=seconds + 60)
    report: dict[str, Any] = json.loads(done.stdout)
    return {name: report[name] for name in ("requests_per_s", "statuses", "errors", "latency_ms")}


def table(result: dict[str, Any]) -> str:
    """Return the phases as Markdown."""
    about = (
        f"**slow**: {USERS} users ask what has been asked before, beside clients that never finish"
        " a request."
    )
    return phases_table(about, result["phases"])


if __name__ == "__main__":
    main()
