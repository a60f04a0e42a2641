"""Flights: one computation for all who ask the same at once."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from ragserve.errors import Unavailable
from ragserve.flow.flight import Flight, Flights, Publish


class Computation:
    """A computation that publishes and ends when the test says so."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = asyncio.Event()
        self.publish: Publish[str] = lambda _: None
        self.started = asyncio.Event()
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self, flight: Flight[str, str]) -> str:
        self.calls += 1
        self.publish = flight.publish
        self.started.set()
        try:
            return await self.outcome
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def ask(flights: Flights[str, str, str], compute: Computation) -> str:
    with flights.join("question", compute) as flight:
        return await flight.result()


async def test_all_who_ask_at_once_share_one_computation() -> None:
    """A hundred askers cost one computation, and all get its result."""
    flights: Flights[str, str, str] = Flights()
    compute = Computation()
    askers = [asyncio.create_task(ask(flights, compute)) for _ in range(100)]
    await compute.started.wait()
    assert repr(flights) == "<Flights 1 under way, 100 aboard>"
    compute.outcome.set_result("answer")
    assert await asyncio.gather(*askers) == ["answer"] * 100
    assert compute.calls == 1
    assert len(flights) == 0


async def test_a_late_listener_hears_the_past_first() -> None:
    """Whoever boards in mid-flight misses nothing and hears it in order."""
    flights: Flights[str, str, str] = Flights()
    compute = Computation()
    early: list[str] = []
    late: list[str] = []
    with flights.join("question", compute, early.append) as flight:
        await compute.started.wait()
        compute.publish("one")
        with flights.join("question", compute, late.append):
            compute.publish("two")
            assert flight.aboard == 2
        compute.publish("three")
        compute.outcome.set_result("end")
        assert await flight.result() == "end"
    assert early == ["one", "two", "three"]
    assert late == ["one", "two"]


async def test_the_first_asker_may_leave() -> None:
    """Cancelling who started a flight does not cancel it for those who joined."""
    flights: Flights[str, str, str] = Flights()
    compute = Computation()
    first, second = (asyncio.create_task(ask(flights, compute)) for _ in range(2))
    await compute.started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    compute.outcome.set_result("answer")
    assert await second == "answer"
    assert not compute.cancelled.is_set()


async def test_the_last_to_leave_cancels() -> None:
    """A flight without anybody aboard is cancelled, and nobody can board it any more."""
    flights: Flights[str, str, str] = Flights()
    abandoned = Computation()
    askers = [asyncio.create_task(ask(flights, abandoned)) for _ in range(2)]
    await abandoned.started.wait()
    for asker in askers:
        asker.cancel()
    await asyncio.wait(askers)
    assert "question" not in flights
    again = Computation()
    again.outcome.set_result("new")
    assert await ask(flights, again) == "new"
    await asyncio.wait_for(abandoned.cancelled.wait(), 10)


async def test_an_error_reaches_everybody() -> None:
    """What the computation raises, every asker gets; the next asker starts anew."""
    flights: Flights[str, str, str] = Flights()
    compute = Computation()
    askers = [asyncio.create_task(ask(flights, compute)) for _ in range(3)]
    await compute.started.wait()
    compute.outcome.set_exception(Unavailable("database: gone"))
    results = await asyncio.gather(*askers, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable] * 3
    assert "question" not in flights


async def test_an_abandoned_failure_is_not_reported_as_unseen() -> None:
    """A computation that fails while it is being cancelled leaves no warning behind."""
    flights: Flights[str, str, str] = Flights()
    failed = asyncio.Event()

    async def compute(_: Flight[str, str]) -> str:
        try:
            return await asyncio.Future()
        finally:
            failed.set()
            raise Unavailable("while closing")

    with flights.join("question", compute):
        await asyncio.sleep(0)
    await asyncio.wait_for(failed.wait(), 10)


async def test_only_the_unheard_can_be_retracted() -> None:
    """A computation may begin again as long as nobody has heard what it said."""
    flights: Flights[str, str, str] = Flights()
    compute = Computation()
    heard: list[str] = []
    with flights.join("question", compute) as flight:
        await compute.started.wait()
        flight.publish("wrong")
        assert flight.retract()
        with flights.join("question", compute, heard.append):
            flight.publish("right")
            assert not flight.retract()
    assert heard == ["right"]


async def test_what_is_remembered_is_heard_as_it_is_told() -> None:
    """Who listens hears only what is told, which cannot be retracted; who joins late, the past."""
    flights: Flights[str, str, str] = Flights()
    compute = Computation()
    early: list[str] = []
    late: list[str] = []
    with flights.join("question", compute) as flight:
        await compute.started.wait()
        flight.remember("unheard")
        assert flight.retract()
        with flights.join("question", compute, early.append):
            flight.remember("a whole answer")
            flight.tell("a whole")
            assert not flight.retract()
            with flights.join("question", compute, late.append):
                flight.tell(" answer")
    assert (early, late) == (["a whole", " answer"], ["a whole answer", " answer"])


async def test_a_cancelled_computation_leaves_nothing_to_the_collector() -> None:
    """What it held is gone with its last reader: a worker collects old cycles seldom."""
    flights: Flights[str, str, str] = Flights()
    held: list[weakref.ref[Computation]] = []

    async def compute(flight: Flight[str, str]) -> str:
        own = Computation()
        held.append(weakref.ref(own))
        return await own(flight)

    gc.disable()
    try:
        asking = asyncio.create_task(ask(flights, compute))
        while not held:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        del asking
        for _ in range(5):
            await asyncio.sleep(0)
        assert held[0]() is None
    finally:
        gc.enable()
