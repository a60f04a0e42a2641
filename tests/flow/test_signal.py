"""A signal reaches all who wait, and only them."""

from __future__ import annotations

import asyncio

from ragserve.flow.signal import Signal


async def test_a_signal_wakes_everybody_who_waits() -> None:
    """One send ends every wait at once."""
    signal = Signal()
    async with asyncio.TaskGroup() as group:
        waits = [group.create_task(signal.wait(60.0)) for _ in range(100)]
        group.create_task(_send_after(signal))
    assert [wait.result() for wait in waits] == [True] * 100


async def _send_after(signal: Signal) -> None:
    # Tasks start in the order they were made: everybody waits by now.
    signal.send()


async def test_a_wait_that_runs_out_says_so() -> None:
    """Without a send within the time the answer is False."""
    assert await Signal().wait(0.001) is False


async def test_an_earlier_signal_does_not_end_a_later_wait() -> None:
    """Who begins to wait after a send waits for the next one."""
    signal = Signal()
    signal.send()
    assert await signal.wait(0.001) is False


async def test_a_timeout_of_one_leaves_the_others_waiting() -> None:
    """Somebody who gives up takes nobody else's signal away."""
    signal = Signal()
    patient = asyncio.create_task(signal.wait(60.0))
    assert await signal.wait(0.001) is False
    signal.send()
    assert await patient is True
