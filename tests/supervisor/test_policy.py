"""The supervisor's policy: courses of events and what follows from each."""

from __future__ import annotations

import random
from signal import SIGKILL, SIGTERM

import pytest

from ragserve.errors import EXIT_CONFIGURATION, EXIT_CRASH_LOOP, EXIT_FAILURE, EXIT_UNAVAILABLE
from ragserve.supervisor.policy import (
    ASLEEP_S,
    KILL_AFTER_S,
    SILENT_S,
    START_S,
    Action,
    Exit,
    Policy,
    Send,
    Slot,
    Start,
)

DRAIN_S = 30.0


class _Longest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


class World:
    """A policy, process ids counted from 1, and a clock that only tests move."""

    def __init__(self, *names: str, overlaps: bool = True) -> None:
        slots = [Slot(name, overlaps=overlaps) for name in names]
        self.policy = Policy(slots, DRAIN_S, _Longest())
        self.now = 0.0
        self.pids = 0
        self.started: list[str] = []
        self.act(self.policy.start())

    def act(self, actions: list[Action]) -> list[Action]:
        """Carry out starts; return the other actions."""
        rest: list[Action] = []
        for action in actions:
            if isinstance(action, Start):
                self.pids += 1
                self.started.append(action.slot)
                self.policy.started(action.slot, self.pids, self.now)
            else:
                rest.append(action)
        return rest

    def ready(self, *pids: int) -> list[Action]:
        return [
            action
            for pid in pids
            for action in self.act(self.policy.heard(pid, self.now, ready=True))
        ]

    def exited(self, pid: int, code: int = 1) -> list[Action]:
        return self.act(self.policy.exited(pid, code, self.now))

    def tick(self, later_s: float) -> list[Action]:
        self.now += later_s
        return self.act(self.policy.tick(self.now))

    def reload(self) -> list[Action]:
        return self.act(self.policy.reload(self.now))

    def stop(self) -> list[Action]:
        return self.act(self.policy.stop(self.now))


@pytest.mark.parametrize("code", [0, EXIT_FAILURE, EXIT_UNAVAILABLE, -9, -11])
def test_a_process_that_lived_is_restarted_at_once(code: int) -> None:
    """After ten seconds of life any end is followed by a start, every time."""
    world = World("a")
    for pid in range(1, 20):
        world.now += 10.0
        assert world.exited(pid, code) == []
        assert world.pids == pid + 1


def test_a_process_that_dies_young_waits_longer_each_time() -> None:
    """The first early death costs nothing, the next up to 1, 2, 4 s; the fifth ends everything."""
    world = World("a", "b")
    world.ready(2)
    delays = []
    for _ in range(4):
        pid = max(world.policy.processes)
        if pid == 2:
            pid = 1
        assert world.exited(pid) == []
        due_s = world.policy.next_tick_s(world.now)
        waiting = world.policy.slots["a"].start_at is not None
        delays.append(due_s if waiting else 0.0)
        if waiting:
            world.tick(delays[-1] or 0.0)
            world.policy.heard(2, world.now, ready=False)
    assert delays == [0.0, 1.0, 2.0, 4.0]
    assert world.exited(max(world.policy.processes)) == [Send(2, SIGTERM)]
    assert world.exited(2, 0) == [Exit(EXIT_CRASH_LOOP)]


def test_who_is_killed_while_serving_is_restarted_at_once() -> None:
    """A kill -9 from outside is no crash, however often it comes; one before readiness is."""
    world = World("a")
    for pid in range(1, 50):
        world.ready(pid)
        world.now += 2.0
        assert world.exited(pid, -SIGKILL) == []
        assert world.pids == pid + 1
    for pid in range(50, 54):
        assert world.exited(pid, -SIGKILL) == []
        world.tick(4.0)
        assert world.pids == pid + 1
    assert world.exited(54, -SIGKILL) == [Exit(EXIT_CRASH_LOOP)]


def test_a_wrong_configuration_ends_everything() -> None:
    """Trying again does not help against a wrong configuration."""
    world = World("a", "b")
    assert world.exited(1, EXIT_CONFIGURATION) == [Send(2, SIGTERM)]
    assert world.exited(2, 0) == [Exit(EXIT_CONFIGURATION)]


def test_silence_is_death() -> None:
    """A ready process that is not heard of for five seconds is killed and replaced."""
    world = World("a")
    world.ready(1)
    world.now = 3.0
    world.policy.heard(1, world.now, ready=False)
    assert world.tick(SILENT_S - 0.1) == []
    assert world.tick(0.1) == [Send(1, SIGKILL)]
    assert world.tick(0.1) == []
    world.now += 10.0
    assert world.exited(1, -SIGKILL) == []
    assert world.started == ["a", "a"]


def test_who_steps_back_may_be_silent_for_longer() -> None:
    """A process that waits for an idle processor is not taken for one that hangs."""
    slot = Slot("ingester", overlaps=False, patience=10.0)
    policy = Policy([slot], DRAIN_S, random.Random(1))
    policy.started("ingester", 1, 0.0)
    assert policy.tick(START_S) == []
    assert policy.next_tick_s(START_S) == 9 * START_S
    policy.heard(1, START_S, ready=True)
    assert policy.tick(START_S + SILENT_S) == []
    assert policy.tick(START_S + 10 * SILENT_S) == [Send(1, SIGKILL)]


def test_who_has_been_asleep_kills_nobody_for_silence() -> None:
    """After a pause of the whole machine all have their time again; who stays silent is killed."""
    world = World("a", "b")
    world.ready(1, 2)
    assert world.tick(SILENT_S + ASLEEP_S) == []
    assert world.policy.next_tick_s(world.now) == SILENT_S
    world.policy.heard(2, world.now + 1.0, ready=False)
    assert world.tick(SILENT_S) == [Send(1, SIGKILL)]
    assert world.tick(KILL_AFTER_S + ASLEEP_S)[0] == Send(1, SIGKILL)


def test_a_start_that_takes_too_long_is_ended() -> None:
    """A process that never becomes ready is killed."""
    world = World("a")
    assert world.tick(START_S - 1) == []
    assert world.tick(1) == [Send(1, SIGKILL)]


def test_a_reload_replaces_one_after_the_other() -> None:
    """Each replacement is ready before the old process is told to stop, and before the next."""
    world = World("a", "b")
    world.ready(1, 2)
    assert world.reload() == []
    assert world.started == ["a", "b", "a"]
    assert world.ready(3) == [Send(1, SIGTERM)]
    assert world.started == ["a", "b", "a", "b"]
    assert world.exited(1, 0) == []
    assert world.ready(4) == [Send(2, SIGTERM)]
    assert world.exited(2, 0) == []
    assert sorted(world.policy.processes) == [3, 4]
    assert world.started == ["a", "b", "a", "b"]


def test_a_reload_that_fails_leaves_the_old_processes() -> None:
    """If a replacement dies before it is ready, nothing else is touched."""
    world = World("a", "b")
    world.ready(1, 2)
    world.reload()
    assert world.exited(3, 1) == []
    assert sorted(world.policy.processes) == [1, 2]
    assert world.started == ["a", "b", "a"]


def test_a_second_reload_waits_for_the_first() -> None:
    """A reload during a reload starts nothing twice."""
    world = World("a", "b")
    world.ready(1, 2)
    world.reload()
    assert world.reload() == []
    assert world.started == ["a", "b", "a"]


def test_what_cannot_overlap_is_stopped_first() -> None:
    """A slot with a lock of its own is replaced after its process has ended."""
    world = World("ingester", overlaps=False)
    world.ready(1)
    assert world.reload() == [Send(1, SIGTERM)]
    assert world.started == ["ingester"]
    assert world.exited(1, 0) == []
    assert world.started == ["ingester", "ingester"]


def test_the_old_process_may_die_before_its_replacement_is_ready() -> None:
    """Then the replacement is the slot's process, and no third one is started."""
    world = World("a")
    world.ready(1)
    world.reload()
    assert world.exited(1, -SIGKILL) == []
    assert world.ready(2) == []
    assert world.started == ["a", "a"]


def test_stopping_drains_and_then_kills() -> None:
    """A stop asks once and kills what does not end in its time."""
    world = World("a", "b")
    world.ready(1, 2)
    assert world.stop() == [Send(1, SIGTERM), Send(2, SIGTERM)]
    assert world.exited(1, 0) == []
    assert world.tick(DRAIN_S + KILL_AFTER_S - 1) == []
    assert world.tick(1) == [Send(2, SIGKILL)]
    assert world.exited(2, -SIGKILL) == [Exit(0)]
    assert world.started == ["a", "b"]


def test_a_second_signal_ends_everything_at_once() -> None:
    """Half a second later it is meant; sooner it is the same signal, sent to the group, too."""
    world = World("a")
    world.ready(1)
    world.stop()
    assert world.stop() == []
    world.now += 0.5
    assert world.stop() == [Send(1, SIGKILL)]


def test_delays_are_jittered() -> None:
    """Processes that die together do not come back together."""

    def second_start(seed: int) -> float | None:
        policy = Policy([Slot("a", overlaps=True)], DRAIN_S, random.Random(seed))
        policy.started("a", 1, 0.0)
        policy.exited(1, 1, 0.0)
        policy.started("a", 2, 0.0)
        policy.exited(2, 1, 0.0)
        return policy.slots["a"].start_at

    starts = {second_start(seed) for seed in range(50)}
    assert len(starts) == 50
    assert all(start is not None and 0 <= start <= 1 for start in starts)


def test_strangers_are_ignored() -> None:
    """A notification of a process that is not ours changes nothing."""
    world = World("a")
    assert world.ready(99) == []
    assert world.tick(0.0) == []


def test_a_slot_more() -> None:
    """A slot that is added wants a process like all others."""
    world = World("a")
    world.ready(1)
    world.act(world.policy.grow(Slot("b", overlaps=True)))
    assert world.started == ["a", "b"]
    world.ready(2)
    world.exited(2)
    assert world.started == ["a", "b", "b"]


def test_a_slot_less() -> None:
    """A slot that is taken away is drained and not filled again; the rest goes on."""
    world = World("a", "b")
    world.ready(1, 2)
    assert world.act(world.policy.shrink("b", world.now)) == [Send(2, SIGTERM)]
    assert world.exited(2, 0) == []
    assert world.started == ["a", "b"]
    world.exited(1)
    assert world.started == ["a", "b", "a"]


def test_a_slot_less_during_a_reload() -> None:
    """A reload skips what has been taken away, and the replacement goes with the replaced."""
    world = World("a", "b")
    world.ready(1, 2)
    world.reload()
    assert world.act(world.policy.shrink("b", world.now)) == [Send(2, SIGTERM)]
    assert world.ready(3) == [Send(1, SIGTERM)]
    assert world.exited(1, 0) == []
    assert world.exited(2, 0) == []
    assert world.started == ["a", "b", "a"]
