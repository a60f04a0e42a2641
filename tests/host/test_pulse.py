"""A loop that is busy and one that hangs, told apart without any help of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from ragserve.host.pulse import Pulse, watched

Run = Callable[[Coroutine[Any, Any, None]], None]
runs = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])


@runs
def test_another_callback_is_a_sign_of_life(run: Run) -> None:
    """Each turn is one, and however often a callback is looked at, it is one."""

    async def main() -> None:
        pulse = Pulse()
        await pulse.begin()
        seen: list[list[bool]] = []

        def deep(levels: int) -> bool:
            return deep(levels - 1) if levels else pulse.look()

        async def turn() -> None:
            await asyncio.sleep(0)
            seen.append([pulse.look(), deep(3), pulse.look()])

        for _ in range(3):
            await asyncio.create_task(turn())
        assert seen == [[True, False, False]] * 3

    run(main())


def test_callbacks_of_one_turn_are_signs_of_life() -> None:
    """A turn may take long, if it is made of many callbacks."""

    async def main() -> None:
        pulse = Pulse()
        await pulse.begin()
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        seen: list[bool] = []

        def callback() -> None:
            seen.append(pulse.look())
            if len(seen) == 5:
                over.set_result(None)

        for _ in range(5):
            loop.call_soon(lambda: callback())
        await over
        assert seen == [True] * 5

    uvloop.run(main())


def test_a_loop_that_waits_is_alive() -> None:
    """It is in no callback, and that is not the same as being in one for long."""

    async def main() -> None:
        pulse = Pulse()
        await pulse.begin()

        def looks() -> list[bool]:
            while pulse._callback() is not None:  # until the loop is where it waits
                pass
            return [pulse.look() for _ in range(3)]

        assert all(await asyncio.get_running_loop().run_in_executor(None, looks))

    uvloop.run(main())


@runs
def test_the_watch_tells_while_the_loop_is_blocked(run: Run) -> None:
    """The first look at a callback, which waits for it, is told."""

    async def main() -> None:
        told = threading.Event()
        async with watched(0.001, told.set):
            for _ in range(3):
                told.clear()
                await asyncio.create_task(_wait(told))

    run(main())


@runs
def test_a_loop_that_hangs_is_silent(run: Run) -> None:
    """While one callback goes on, however it does, there is no second sign of life."""

    async def main() -> None:
        looked = threading.Semaphore(0)
        pulse = Pulse()
        await pulse.begin()
        seen: list[bool] = []

        def watch() -> None:
            seen.extend(pulse.look() for _ in range(20))
            looked.release()

        async def hang() -> None:
            thread = threading.Thread(target=watch)
            thread.start()
            while not looked.acquire(blocking=False):
                sorted(range(100))
            thread.join()

        await asyncio.create_task(hang())
        assert seen[1:] == [False] * 19

    run(main())


async def _wait(told: threading.Event) -> None:
    assert told.wait(10)
