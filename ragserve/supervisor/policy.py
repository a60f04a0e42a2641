"""What the supervisor does about exits, notifications, signals and the clock: pure decisions.

Every slot wants one living process. Events come in with ``now`` and return actions; nothing here
touches a process, a socket or the clock, so every course of events can be tested as a table.

- A process that lived is restarted at once, one that keeps dying young after a growing, jittered
  delay. After ``CRASH_LOOP_EXITS`` such deaths in a row within ``CRASH_LOOP_S`` restarting has
  shown not to help, and everything ends. Whoever kills a process that serves (an operator, the
  kernel short of memory) shows nothing of that kind: it is restarted at once.
- A process that is not ready within ``START_S``, or ready and silent for ``SILENT_S`` (times its
  slot's patience), is killed;
  its exit then takes the usual course. A supervisor that finds silence much later than it would
  have looked has not been running itself (a machine that was paused, or short of processor), and
  neither has who was silent: that begins anew.
- A reload replaces one slot after another. A worker's replacement is ready before the old one is
  told to stop; if the replacement dies first, the old one stays and the reload ends there. A slot
  that cannot overlap (the ingest process holds a lock) is stopped first.
"""

from __future__ import annotations

import random
import signal
from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ragserve.errors import EXIT_CONFIGURATION, EXIT_CRASH_LOOP
from ragserve.flow.backoff import backoff_s

START_S = 120.0
"""Loading models and recovering a database take their time on slow disks."""
SILENT_S = 5.0
ASLEEP_S = 1.0
"""Whoever notices silence so much too late has been asleep."""
YOUNG_S = 10.0
"""A process that dies before this age died of starting."""
CRASH_LOOP_EXITS = 5
CRASH_LOOP_S = 60.0
BASE_S = 0.5
CAP_S = 10.0
KILL_AFTER_S = 5.0
"""How long after the drain time a process that does not end is killed."""
SECOND_SIGNAL_S = 0.5
"""A second signal ends everything at once; one that follows sooner is the same one, sent to the
process and to its group."""


class Start(NamedTuple):
    """Start a process for this slot; report its id with ``Policy.started``."""

    slot: str


class Send(NamedTuple):
    """Send a signal to a process."""

    pid: int
    number: signal.Signals


class Exit(NamedTuple):
    """All processes are gone: end with this code."""

    code: int


Action = Start | Send | Exit
State = Literal["starting", "ready", "draining"]


class Process:
    """A living process: when it started, when it was last heard of."""

    def __init__(self, slot: Slot, pid: int, now: float) -> None:
        self.slot = slot
        self.pid = pid
        self.state: State = "starting"
        self.started_at = now
        self.heard_at = now
        self.kill_at: float | None = None

    def __repr__(self) -> str:
        return f"<Process {self.slot.name}, pid {self.pid}, {self.state}>"


class Slot:
    """A place for one process. ``overlaps``: a replacement may start beside the old process.

    ``patience`` is how many times longer its process may start and be silent: one that runs only
    when nobody else wants the processor does both on a busy host, and hangs in neither.
    """

    def __init__(self, name: str, *, overlaps: bool, patience: float = 1.0) -> None:
        self.name = name
        self.overlaps = overlaps
        self.patience = patience
        self.current: Process | None = None
        self.replacement: Process | None = None
        self.start_at: float | None = None
        self.young_deaths: deque[float] = deque(maxlen=CRASH_LOOP_EXITS)


class Policy:
    """The state of all slots and what follows from each event."""

    def __init__(self, slots: Sequence[Slot], drain_s: float, rng: random.Random) -> None:
        self.slots = {slot.name: slot for slot in slots}
        self.processes: dict[int, Process] = {}
        self._drain_s = drain_s
        self._rng = rng
        self._to_replace: deque[Slot] = deque()
        self._stopping_since: float | None = None
        self._exit_code = 0

    @property
    def stopping(self) -> bool:
        """Whether the end has begun."""
        return self._stopping_since is not None

    def start(self) -> list[Action]:
        """Begin: every slot wants a process."""
        return [Start(name) for name in self.slots]

    def started(self, name: str, pid: int, now: float) -> None:
        """Note the process that a ``Start`` led to."""
        slot = self.slots[name]
        process = self.processes[pid] = Process(slot, pid, now)
        slot.start_at = None
        if slot.current is None:
            slot.current = process
        else:
            slot.replacement = process

    def heard(self, pid: int, now: float, *, ready: bool) -> list[Action]:
        """Take a sign of life; ``ready`` if the process says that it serves."""
        process = self.processes.get(pid)
        if process is None:
            return []
        process.heard_at = now
        if not ready or process.state != "starting":
            return []
        process.state = "ready"
        slot = process.slot
        if process is not slot.replacement or slot.current is None:
            return self._replace_next(now)
        old, slot.current, slot.replacement = slot.current, process, None
        return [*self._drain(old, now), *self._replace_next(now)]

    def reload(self, now: float) -> list[Action]:
        """Replace every process, one after the other."""
        if self.stopping or self._to_replace:
            return []
        self._to_replace.extend(self.slots.values())
        return self._replace_next(now)

    def grow(self, slot: Slot) -> list[Action]:
        """Want one process more."""
        if self.stopping:
            return []
        self.slots[slot.name] = slot
        return [Start(slot.name)]

    def shrink(self, name: str, now: float) -> list[Action]:
        """Want no process in this slot any more."""
        if self.stopping:
            return []
        slot = self.slots.pop(name)
        if slot in self._to_replace:
            self._to_replace.remove(slot)
        return [
            action
            for process in (slot.current, slot.replacement)
            if process is not None and process.state != "draining"
            for action in self._drain(process, now)
        ]

    def stop(self, now: float, code: int = 0) -> list[Action]:
        """End everything: gracefully the first time, at once the second."""
        if self._stopping_since is not None:
            if now - self._stopping_since < SECOND_SIGNAL_S:
                return []
            return [Send(pid, signal.SIGKILL) for pid in self.processes]
        self._stopping_since = now
        self._exit_code = code
        self._to_replace.clear()
        for slot in self.slots.values():
            slot.start_at = None
        actions = [
            action
            for process in list(self.processes.values())
            for action in self._drain(process, now)
        ]
        return actions or [Exit(code)]

    def exited(self, pid: int, code: int, now: float) -> list[Action]:
        """Decide what follows from the end of a process."""
        process = self.processes.pop(pid)
        slot = process.slot
        if self.stopping:
            return [] if self.processes else [Exit(self._exit_code)]
        if self.slots.get(slot.name) is not slot:
            return self._replace_next(now)  # the slot is gone
        if process is slot.replacement:
            slot.replacement = None
            self._to_replace.clear()
            return []
        if process is not slot.current:
            return []  # it was told to go
        slot.current = None
        if process.state == "draining":
            return [Start(slot.name)]
        if slot.replacement is not None:
            slot.current, slot.replacement = slot.replacement, None
            return []
        return self._restart(slot, process, code, now)

    def tick(self, now: float) -> list[Action]:
        """Do what is due: starts that waited, processes that are late or silent."""
        actions: list[Action] = []
        for slot in self.slots.values():
            if slot.start_at is not None and now >= slot.start_at:
                slot.start_at = None
                actions.append(Start(slot.name))
        for process in self.processes.values():
            late_s = now - self._kill_at(process)
            if late_s >= ASLEEP_S and process.kill_at is None and process.state == "ready":
                process.heard_at = now
            elif late_s >= 0.0:
                process.kill_at = now + KILL_AFTER_S  # once, and again should it survive
                actions.append(Send(process.pid, signal.SIGKILL))
        return actions

    def next_tick_s(self, now: float) -> float | None:
        """Return the seconds until ``tick`` has something to do; None if nothing is due."""
        moments = [slot.start_at for slot in self.slots.values() if slot.start_at is not None]
        moments += [self._kill_at(process) for process in self.processes.values()]
        return max(0.0, min(moments) - now) if moments else None

    def _kill_at(self, process: Process) -> float:
        if process.kill_at is not None:
            return process.kill_at
        if process.state == "starting":
            return process.started_at + process.slot.patience * START_S
        return process.heard_at + process.slot.patience * SILENT_S

    def _drain(self, process: Process, now: float) -> list[Action]:
        process.state = "draining"
        process.kill_at = now + self._drain_s + KILL_AFTER_S
        return [Send(process.pid, signal.SIGTERM)]

    def _replace_next(self, now: float) -> list[Action]:
        """Go on with a reload unless a replacement is on its way."""
        busy = any(
            slot.replacement is not None or slot.current is None or slot.current.state != "ready"
            for slot in self.slots.values()
        )
        if busy or not self._to_replace:
            return []
        slot = self._to_replace.popleft()
        if slot.overlaps or slot.current is None:
            return [Start(slot.name)]
        return self._drain(slot.current, now)

    def _restart(self, slot: Slot, process: Process, code: int, now: float) -> list[Action]:
        if code == EXIT_CONFIGURATION:
            return self.stop(now, EXIT_CONFIGURATION)
        if now - process.started_at >= YOUNG_S:
            slot.young_deaths.clear()
            return [Start(slot.name)]
        if code == -signal.SIGKILL and process.state == "ready" and process.kill_at is None:
            return [Start(slot.name)]
        slot.young_deaths.append(now)
        deaths = sum(1 for death in slot.young_deaths if now - death <= CRASH_LOOP_S)
        if deaths >= CRASH_LOOP_EXITS:
            return self.stop(now, EXIT_CRASH_LOOP)
        if deaths == 1:
            return [Start(slot.name)]
        slot.start_at = now + backoff_s(deaths, base_s=BASE_S, cap_s=CAP_S, rng=self._rng)
        return []
