"""Run a soak, print what was seen, and fail if anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cores import AVAILABLE
from bench.results import environment, write
from bench.soak.clients import Tally, Tenant
from bench.soak.faults import Faults
from bench.soak.table import table
from bench.soak.watch import Watch, quarters
from bench.soak.world import World, make_world

NEVER = ("wrong", "stale", "of another tenant", "lost", "error")
"""Outcomes that fail a run."""
SETTLE_S = 15.0
"""After the load: for the last fault to be over and the last stream to end."""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second and tenant")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, help="keep the server's log there")
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="ragserve-soak-") as directory,
        make_world(Path(directory), set(AVAILABLE)) as world,
    ):
        result = asyncio.run(soak(world, arguments))
        if arguments.log is not None:
            shutil.copy(world.log, arguments.log)
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('soak', result)}")
    return 1 if result["failed"] else 0


async def soak(world: World, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was seen in so many minutes."""
    seconds = 60 * arguments.minutes
    tally, watch = Tally(), Watch(world)
    faults = Faults(world, tally, arguments.every, arguments.seed)
    over, unwatched, settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for number, (name, key) in enumerate(world.keys.items()):
            tenant = Tenant(name, world.url, key, tally, arguments.seed + number)
            group.create_task(tenant.run(arguments.rate, over))
        group.create_task(faults.run(over, settled))
        group.create_task(watch.run(unwatched))
        group.create_task(_tell(tally, faults, over))
        loop.call_later(seconds / 3, settled.set)
        await asyncio.sleep(seconds)
        over.set()
        await asyncio.sleep(SETTLE_S)
        busy = await watch.busy()
        unwatched.set()
    wrong = {name: count for name in NEVER if (count := tally.total(name))}
    return {
        "scenario": "soak",
        "minutes": arguments.minutes,
        "environment": environment(),
        "outcomes": {f"{kind}: {name}": n for (kind, name), n in sorted(tally.counts.items())},
        "examples": tally.examples,
        "faults": dict(sorted(faults.counts.items())),
        "scrapes": [watch.scrapes, watch.scrapes_failed],
        "counters_fallen": watch.fallen,
        "still_under_way": busy,
        "growth": watch.growth(seconds / 2),
        "kept_answers_mb": quarters(watch.kept_mb),
        "failed": {**wrong, **busy, **({"fallen": len(watch.fallen)} if watch.fallen else {})},
    }


async def _tell(tally: Tally, faults: Faults, over: asyncio.Event) -> None:
    """Say every half minute how it goes."""
    begin = time.monotonic()
    while not over.is_set():
        await asyncio.sleep(30)
        outcomes = sorted({outcome for _, outcome in tally.counts})
        counts = ", ".join(f"{name} {tally.total(name)}" for name in outcomes)
        print(f"{time.monotonic() - begin:.0f} s, {faults.counts.total()} faults: {counts}")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
