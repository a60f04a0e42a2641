"""How late an event loop is: what a request waits before anybody looks at it."""

from __future__ import annotations

import asyncio

from ragserve.metrics import LOOP_LAG, WORKER_LAG

INTERVAL_S = 0.1
WINDOW_S = 30.0


class Worst:
    """The greatest amount of the last ``WINDOW_S`` to ``2 * WINDOW_S`` seconds. Pure."""

    def __init__(self) -> None:
        self._until = float("-inf")
        self._before = self._now = 0.0

    def note(self, amount: float, now: float) -> None:
        """Take note of one."""
        if now >= self._until:
            self._before, self._now = self._now, 0.0
            self._until = now + WINDOW_S
        self._now = max(self._now, amount)

    @property
    def amount(self) -> float:
        """Return it."""
        return max(self._before, self._now)


async def measure_lag() -> None:
    """Observe the lag of the running loop until cancelled."""
    loop = asyncio.get_running_loop()
    worst = Worst()
    WORKER_LAG.set_function(lambda: worst.amount)
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        now = loop.time()
        lag_s = max(0.0, now - due)
        LOOP_LAG.observe(lag_s)
        worst.note(lag_s, now)
