"""Permits: adaptive, fair between tenants, never lost, refused before they would come too late."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.errors import DeadlineExceeded, Overloaded
from ragserve.flow.admission import ENTERING_S, STILL_S, Admission
from ragserve.flow.deadline import deadline_after
from ragserve.flow.fair import FairQueue
from ragserve.flow.gate import FIRST, GIVEN_UP, UNKNOWN, Gate
from ragserve.flow.gradient import Gradient


def gate(
    permits: int, burst_s: float = 5.0, standing_s: float = 5.0, *, within: bool = False
) -> Gate:
    """Return a gate that does not adapt."""
    limit = Gradient(permits, permits)
    return Gate("stage", limit, burst_s=burst_s, standing_s=standing_s, within=within)


def knows(stage: Gate, seconds: float) -> None:
    """Let it know how long a call takes."""
    stage._calls, stage._mean_s, stage.typical_s = FIRST, seconds, seconds


async def hold(stage: Gate, tenant: str, seconds: float, done: list[str]) -> None:
    """Pass the gate, stay for a while, say so."""
    async with stage.permit(tenant, deadline_after(30.0, time.monotonic())):
        await asyncio.sleep(seconds)
    done.append(tenant)


def test_lines_take_turns_whatever_their_length() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(100):
        queue.push("greedy", number)
    queue.push("modest", 1000)
    assert queue.rank("modest") == 3, "its own, and as many of the other's"
    assert queue.rank("greedy") == 101
    assert queue.rank("new") == 2
    assert [queue.pop() for _ in range(4)] == [0, 1000, 1, 2]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abcd"), st.sampled_from(("push", "leave"))),
            st.tuples(st.just(""), st.sampled_from(("pop", "newest"))),
        ),
        max_size=80,
    )
)
def test_a_rank_counts_those_who_come_before(steps: list[tuple[str, str]]) -> None:
    """Its own line, and of each other as many as it has turns until then; whatever happened."""
    queue: FairQueue[int] = FairQueue()
    lines: dict[str, list[int]] = {name: [] for name in "abcd"}
    for number, (tenant, step) in enumerate(steps):
        if step == "push":
            queue.push(tenant, number)
            lines[tenant].append(number)
        elif step == "leave":
            if lines[tenant]:
                queue.discard(tenant, lines[tenant].pop(0))
        elif len(queue):
            taken = queue.pop(newest=step == "newest")
            next(line for line in lines.values() if taken in line).remove(taken)
        for name, line in lines.items():
            others = [len(other) for key, other in lines.items() if key != name]
            before = len(line) + sum(min(length, len(line) + 1) for length in others)
            assert queue.rank(name) == before


def test_what_costs_more_comes_less_often() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(30):
        queue.push("dear", "dear", cost=3)
        queue.push("cheap", "cheap")
    taken = Counter(queue.pop() for _ in range(20))
    assert taken == {"cheap": 15, "dear": 5}


def test_the_newest_of_a_line() -> None:
    queue: FairQueue[int] = FairQueue()
    for number in range(3):
        queue.push("a", number)
    assert [queue.pop(newest=True), queue.pop(), queue.pop()] == [2, 0, 1]
    with pytest.raises(IndexError):
        queue.pop()
    queue.push("a", 7)
    queue.discard("a", 7)
    queue.discard("a", 7)
    assert len(queue) == 0


def test_a_limit_finds_what_a_stage_can_bear() -> None:
    """A stage slows down and can bear 8 at once: a limit of 64 is near that within seconds."""
    limit = Gradient(2, 64)
    now = 0.0
    for _ in range(200):  # calm
        now += 0.05
        limit.observe(0.010, 2, now)
    for _ in range(400):
        now += 0.02
        used = limit.limit
        limit.observe(0.010 * max(1.0, used / 8), used, now)
    assert 8 <= limit.limit <= 24
    for _ in range(3000):  # a faster stage: it grows again
        now += 0.02
        limit.observe(0.005, limit.limit, now)
    assert limit.limit == 64


async def test_no_more_than_permitted_and_nobody_forgotten() -> None:
    """Holders fail, leave and run out of time at random; in the end all permits are back."""
    stage, rng, inside = gate(5), random.Random(5), 0
    ended: Counter[str] = Counter()

    async def visit(number: int) -> None:
        nonlocal inside
        deadline = deadline_after(rng.choice((0.005, 0.02, 30.0)), time.monotonic())
        try:
            async with stage.permit(f"tenant {number % 7}", deadline):
                inside += 1
                assert inside <= 5
                try:
                    await asyncio.sleep(rng.random() * 0.004)
                    if number % 11 == 0:
                        raise ValueError
                finally:
                    inside -= 1
            ended["done"] += 1
        except (ValueError, DeadlineExceeded) as error:
            ended[type(error).__name__] += 1

    async with asyncio.timeout(60):
        visits = [asyncio.create_task(visit(number)) for number in range(600)]
        for task in visits[::9]:
            await asyncio.sleep(0.001)
            task.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
    assert stage.used == 0
    assert stage.waiting == 0
    assert ended["done"] > 50
    assert ended["ValueError"] > 0
    assert ended["DeadlineExceeded"] > 0


async def test_a_greedy_tenant_waits_for_itself() -> None:
    stage = gate(2)
    done: list[str] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(hold(stage, "greedy", 0.002, done))
        await asyncio.sleep(0.004)
        for number in range(5):
            group.create_task(hold(stage, f"modest {number}", 0.002, done))
    last = max(done.index(f"modest {number}") for number in range(5))
    assert last < 25, f"the modest were behind {last} others"


async def test_the_entrance_refuses_who_would_wait_too_long() -> None:
    stage = gate(1, burst_s=0.55, standing_s=0.55)
    entrance = Admission([stage])
    done: list[str] = []
    knows(stage, 0.1)
    async with asyncio.TaskGroup() as group:
        for _ in range(6):
            entrance.check("greedy", time.monotonic())
            group.create_task(hold(stage, "greedy", 0.1, done))
            await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="at its limit") as refused:
            entrance.check("greedy", time.monotonic())
        assert refused.value.retry_after_s is not None
        assert 1.0 <= refused.value.retry_after_s <= 2.2
        entrance.check("modest", time.monotonic())
        with pytest.raises(Overloaded):
            entrance.check("modest", time.monotonic(), deadline_after(0.2, time.monotonic()))
    entrance.check("greedy", time.monotonic())


@pytest.mark.parametrize("within", [False, True])
async def test_after_long_the_newest_comes_first_unless_all_have_cost_something(
    within: bool,
) -> None:
    stage = gate(1, burst_s=0.5, within=within)
    done: list[str] = []

    async def visit(name: str) -> None:
        async with stage.permit("a", deadline_after(30.0, time.monotonic())):
            done.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(hold(stage, "a", 0.6, []))
        for name in ("first", "second", "third"):
            await asyncio.sleep(0)
            group.create_task(visit(name))
    assert sorted(done) == ["first", "second", "third"]
    assert (done == ["first", "second", "third"]) == within
    assert done[0] == ("first" if within else "third")


async def test_who_waits_while_newer_ones_come_first_is_told_before_its_deadline() -> None:
    """Not as soon as newer ones come first: after three times as long, and with a 503."""
    stage = gate(1, burst_s=0.2)
    done: list[str] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(hold(stage, "a", GIVEN_UP * 0.2 + 0.1, done))
        await asyncio.sleep(0)
        old = asyncio.create_task(hold(stage, "b", 0.0, done))
        await asyncio.sleep(GIVEN_UP * 0.2)
        group.create_task(hold(stage, "c", 0.0, done))
    with pytest.raises(Overloaded, match="newer requests come first") as caught:
        await old
    assert caught.value.retry_after_s == 0.2
    assert done == ["a", "c"]
    assert (stage.used, stage.waiting) == (0, 0)


async def test_a_queue_that_never_empties_is_no_burst() -> None:
    stage = gate(1, burst_s=10.0, standing_s=0.01)
    entrance = Admission([stage])
    done: list[str] = []
    knows(stage, 0.05)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(hold(stage, "a", 0.05, done))
        await asyncio.sleep(0.02)
        entrance.check("a", time.monotonic())
        await asyncio.sleep(0.12)
        with pytest.raises(Overloaded):
            entrance.check("a", time.monotonic())


async def test_who_is_refused_again_and_again_gets_a_shorter_queue() -> None:
    """Only the flooding tenant does, only as long as it floods, and never none at all."""
    stage = gate(1, burst_s=0.5, standing_s=0.4)
    done: list[str] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(hold(stage, "greedy", 0.01, done))
        await asyncio.sleep(0)
        now = time.monotonic() + 1.0
        assert not stage.is_too_long(0.3, "greedy", now)
        for tick in range(200):  # ten seconds of more than can be done
            assert stage.is_too_long(5.0, "greedy", now + 0.05 * tick)
        now += 10.0
        assert stage.is_too_long(0.11, "greedy", now)
        assert not stage.is_too_long(0.09, "greedy", now)
        assert not stage.is_too_long(0.39, "modest", now)
        for tick in range(200):  # and ten of less
            stage.is_too_long(0.0, "greedy", now + 0.05 * tick)
        assert not stage.is_too_long(0.39, "greedy", now + 10.0)
    assert not stage.is_too_long(0.49, "greedy", time.monotonic()), "nobody waits: a burst"


async def test_a_permit_that_comes_too_late_is_none() -> None:
    stage = gate(1)
    done: list[str] = []
    knows(stage, 0.1)
    holding = asyncio.create_task(hold(stage, "a", 0.1, done))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match=r"no permit within the request's 0\.15 s"):
        async with stage.permit("b", deadline_after(0.15, time.monotonic())):
            pytest.fail("0.05 s are left, and it takes 0.1")
    await holding
    assert repr(stage) == "<Gate stage: 0 of 1, 0 waiting>"


async def test_a_server_that_starts_into_a_flood_lets_in_only_so_much_of_it() -> None:
    """Before it knows how long a call takes, the queue is bounded by a number."""
    stage = gate(2, burst_s=0.5)
    entrance = Admission([stage], random.Random(1))
    begin, inside = asyncio.Event(), 0

    async def ask() -> None:
        nonlocal inside
        async with stage.permit("flood", deadline_after(30.0, time.monotonic())):
            await begin.wait()
            inside += 1

    asking = []
    for _ in range(UNKNOWN + 100):
        if not entrance.refusal("flood", time.monotonic()):
            asking.append(asyncio.create_task(ask()))
            await asyncio.sleep(0)
    assert stage.waiting == UNKNOWN
    assert entrance.refusal("flood", time.monotonic()) > 0.5, "longer than the burst's patience"
    assert not entrance.refusal("another", time.monotonic()), "whose turn comes at once"
    begin.set()
    await asyncio.gather(*asking)
    assert inside == UNKNOWN + 2, "nobody who was let in is lost"


async def test_who_is_refused_is_refused_for_a_moment_and_then_looked_at_again() -> None:
    stage = gate(1, burst_s=0.1, standing_s=0.1)
    knows(stage, 1.0)
    entrance = Admission([stage], random.Random(1))
    now = time.monotonic()
    async with stage.permit("a", deadline_after(30.0, now)):
        refused = entrance.refusal("a", now)
        assert refused
    assert not stage.waiting
    assert entrance.refusal("a", now + STILL_S / 2) == refused
    assert not entrance.refusal("b", now + STILL_S / 2), "it is nobody else's refusal"
    assert not entrance.refusal("a", now + 2 * STILL_S)


async def test_who_has_been_let_in_is_counted_until_it_arrives() -> None:
    """All who come at once would else find the same room."""
    stage = gate(2, burst_s=2.5)
    knows(stage, 1.0)  # so 0.5 s for each who waits
    entrance = Admission([stage], random.Random(1))

    def come(tenant: str, now: float) -> bool:
        if entrance.refusal(tenant, now):
            return False
        entrance.let_in(tenant, now)
        return True

    assert [come("a", 0.0) for _ in range(9)] == [True] * 7 + [False] * 2, "two go in, five wait"
    assert come("b", 0.0), "it waits for its own"
    assert entrance.has_let_in("a", 0.0)
    later = STILL_S + 0.001
    assert [come("a", later) for _ in range(2)] == [True, False], "one has come where it is seen"
    gone = later + ENTERING_S + 0.001
    assert [come("a", gone) for _ in range(9)] == [True] * 7 + [False] * 2, "none has ever come"
    assert sum(entrance.has_let_in("a", gone) for _ in range(9)) == 7
    assert not entrance.has_let_in("c", gone)


async def test_who_has_been_let_in_is_refused_only_for_its_deadline() -> None:
    """What has cost something is not refused for a queue that was short enough when it came."""
    stage = gate(1, burst_s=0.1, standing_s=0.1)
    knows(stage, 1.0)
    entrance = Admission([stage], random.Random(1))
    now = time.monotonic()
    async with stage.permit("a", deadline_after(30.0, now)):
        with pytest.raises(Overloaded):
            entrance.check("a", now, deadline_after(30.0, now))
        entrance.check("a", now, deadline_after(30.0, now), let_in=True)
        with pytest.raises(Overloaded):
            entrance.check("a", now, deadline_after(1.5, now), let_in=True)
