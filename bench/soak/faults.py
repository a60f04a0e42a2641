"""What happens to the host: one fault after another, with time to come back in between."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import psutil

from bench.soak.clients import Tally, clock
from bench.soak.world import WORKERS, World

AWAY_S = 3.0
HUNG_S = 30.0
"""The supervisor waits 6 s for a sign of life, more if it does not get the processor itself."""


class Faults:
    """The faults of a world. ``counts`` tells how often each came."""

    def __init__(self, world: World, tally: Tally, every_s: float, seed: int) -> None:
        self._world = world
        self._tally = tally
        self._every_s = every_s
        self._rng = random.Random(seed)
        self.counts: Counter[str] = Counter()

    async def run(self, over: asyncio.Event, settled: asyncio.Event) -> None:
        """Let one come every so often; once ``settled``, none that replaces all processes."""
        common: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.kill_worker,
            self.restart_redis,
            self.freeze_redis,
            self.restart_postgres,
            self.lose_model,
        ]
        early = [*common, self.reload, self.hang_worker]
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self._every_s)
                return
            fault = self._rng.choice(common if settled.is_set() else early)
            self.counts[fault.__name__] += 1
            print(f"{clock()} {fault.__name__}", flush=True)
            await fault()

    async def kill_worker(self) -> None:
        """Kill the youngest worker; the oldest lives long and is watched."""
        workers = await self._all_ready()
        if workers:
            now = time.monotonic()
            workers[-1].kill()
            self._tally.dying(now, time.monotonic())

    async def hang_worker(self) -> None:
        """Stop a worker; its supervisor kills it."""
        workers = await self._all_ready()
        if workers:
            now = time.monotonic()
            self._tally.dying(now, now + HUNG_S)
            workers[-1].send_signal(signal.SIGSTOP)
            await asyncio.to_thread(psutil.wait_procs, workers[-1:], HUNG_S)
            self._tally.died(now, time.monotonic())

    async def _all_ready(self) -> list[psutil.Process]:
        """Return the workers, oldest first; none if one of them is not ready."""
        try:
            workers = await asyncio.to_thread(self._world.ready_workers)
        except OSError:  # whoever was asked was on its way out
            return []
        return workers if len(workers) == WORKERS else []

    async def reload(self) -> None:
        """Replace every process."""
        self._world.reload()

    async def restart_redis(self) -> None:
        """Kill Redis; what it held is gone."""
        self._world.redis.kill()
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(self._world.redis.start)

    async def freeze_redis(self) -> None:
        """Let Redis take connections and not answer."""
        self._world.redis.send(signal.SIGSTOP)
        await asyncio.sleep(AWAY_S)
        self._world.redis.send(signal.SIGCONT)

    async def restart_postgres(self) -> None:
        """Let PostgreSQL crash and recover."""
        await asyncio.to_thread(self._world.postgres.stop)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(self._world.postgres.start)

    async def lose_model(self) -> None:
        """Take the model's server away for a while."""
        await asyncio.to_thread(self._world.stop_model)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(self._world.start_model)
