"""A turn of the loop for each: nothing runs twice in one, nobody who has left holds one up."""

from __future__ import annotations

import asyncio

from ragserve.flow.pace import Pace


async def test_of_many_that_may_go_on_each_has_a_turn_of_its_own() -> None:
    pace, turn, had = Pace(), 0, []
    over = asyncio.Event()

    def tick() -> None:
        nonlocal turn
        turn += 1
        if not over.is_set():
            asyncio.get_running_loop().call_soon(tick)

    async def work(number: int) -> None:
        await pace.take()
        had.append((turn, number))

    tick()
    await asyncio.gather(*(work(number) for number in range(20)))
    over.set()
    turns = [turn for turn, _ in had]
    assert len(set(turns)) == 20, "no two in one turn"
    assert turns[-1] - turns[0] <= 21, "and none left out"
    assert [number for _, number in had] == list(range(20))


async def test_who_comes_alone_does_not_wait() -> None:
    pace = Pace()
    for _ in range(3):
        taking = pace.take()
        try:
            taking.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("waited for nobody")
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_has_left_holds_up_nobody() -> None:
    pace = Pace()
    tasks = [asyncio.create_task(pace.take()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[1:4]:
        task.cancel()
    async with asyncio.timeout(30):
        await tasks[4]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert repr(pace) == "<Pace, 0 waiting>"
