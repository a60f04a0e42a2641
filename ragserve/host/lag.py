"""How late an event loop is: what a request waits before anybody looks at it."""

from __future__ import annotations

import asyncio

from ragserve.metrics import LOOP_LAG

INTERVAL_S = 0.1


async def measure_lag() -> None:
    """Observe the lag of the running loop until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + INTERVAL_S
        await asyncio.sleep(INTERVAL_S)
        LOOP_LAG.observe(max(0.0, loop.time() - due))
