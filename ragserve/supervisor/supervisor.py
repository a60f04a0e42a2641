"""The mechanism: processes, listening sockets, signals. What to do is ``policy``'s to say.

The supervisor holds every listening socket for as long as it lives, so that connections wait in a
socket's queue while its worker is replaced, and a worker's death loses none of them.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NamedTuple

from ragserve.errors import RagserveError
from ragserve.host.members import SUPERVISOR
from ragserve.host.sockets import LISTEN_FD
from ragserve.supervisor.log import log
from ragserve.supervisor.notifications import Notifications
from ragserve.supervisor.policy import SILENT_S, Action, Exit, Policy, Send, Slot, Start
from ragserve.supervisor.takeover import Orphan

SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGCHLD,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Program:
    """What a slot runs: a command, and a worker's listening sockets and core."""

    def __init__(
        self,
        slot: Slot,
        command: Sequence[str],
        listeners: Sequence[socket.socket] = (),
        cpu: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.slot = slot
        self._environ = environ or {}
        self._command = command
        self._listeners = listeners
        self._cpu = cpu

    def close(self) -> None:
        """Give up the listening sockets; the worker has its own copies until it ends."""
        for listener in self._listeners:
            listener.close()

    def start(self, notify_address: str) -> subprocess.Popen[bytes]:
        """Start the program with what it inherits."""
        environ = {**os.environ, **self._environ, SUPERVISOR: str(os.getpid())}
        environ["NOTIFY_SOCKET"] = notify_address
        environ["WATCHDOG_USEC"] = str(int(SILENT_S * 1e6))
        environ.pop("WATCHDOG_PID", None)
        fds = [listener.fileno() for listener in self._listeners]
        if fds:
            environ[LISTEN_FD] = ",".join(map(str, fds))
        process = subprocess.Popen(self._command, pass_fds=fds, env=environ)  # noqa: S603
        if self._cpu is not None:
            os.sched_setaffinity(process.pid, {self._cpu})
        return process


class Settings(NamedTuple):
    """What a supervisor needs besides programs.

    ``check_reload`` raises if the configuration cannot be used; ``another`` returns the program of
    the worker with a number that is not there yet.
    """

    drain_s: float
    check_reload: Callable[[], object]
    another: Callable[[int], Program]


class Supervisor:
    """Runs programs until told to stop, or until restarting no longer helps."""

    def __init__(
        self,
        workers: Sequence[Program],
        others: Sequence[Program],
        settings: Settings,
        orphans: Sequence[Orphan] = (),
    ) -> None:
        self._workers = [program.slot.name for program in workers]
        programs = [*workers, *others]
        self._programs = {program.slot.name: program for program in programs}
        rng = random.Random()  # noqa: S311 - jitter
        self._policy = Policy([program.slot for program in programs], settings.drain_s, rng)
        self._settings = settings
        self._orphans = list(orphans)
        self._last_words: dict[int, str] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._notifications = Notifications()
        self._exit_code: int | None = None

    def run(self) -> int:
        """Keep the programs running; return the exit code."""
        wake, wake_end = socket.socketpair()
        wake.setblocking(False)
        wake_end.setblocking(False)
        before = {number: signal.signal(number, _noted) for number in SIGNALS}
        before_fd = signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(wake, selectors.EVENT_READ)
                selector.register(self._notifications, selectors.EVENT_READ)
                self._act(self._policy.start())
                while self._exit_code is None:
                    selector.select(self._policy.next_tick_s(time.monotonic()))
                    self._turn(_drained(wake), time.monotonic())
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._notifications.close()
            wake.close()
            wake_end.close()
        return self._exit_code

    def _turn(self, signals: bytes, now: float) -> None:
        """Take in everything that has happened."""
        for notification in self._notifications.receive():
            if notification.status is not None:
                self._last_words[notification.pid] = notification.status
            self._act(self._policy.heard(notification.pid, now, ready=notification.ready))
            if notification.ready:
                self._end_orphans()
        for number in signals:
            if number in (signal.SIGTERM, signal.SIGINT):
                if not self._policy.stopping:
                    log.info("supervisor_stops", signal=signal.Signals(number).name)
                self._act(self._policy.stop(now))
            elif number == signal.SIGHUP:
                self._reload(now)
            elif number == signal.SIGTTIN:
                self._grow()
            elif number == signal.SIGTTOU:
                self._shrink(now)
        for pid, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[pid]
                self._note_exit(pid, code, now)
        self._act(self._policy.tick(now))

    def _note_exit(self, pid: int, code: int, now: float) -> None:
        state = self._policy.processes[pid]
        error = self._last_words.pop(pid, None) or _cause(code)
        if state.state == "draining":
            log.info("child_stopped", child=state.slot.name, pid=pid, code=code)
        else:
            log.error("child_died", child=state.slot.name, pid=pid, code=code, error=error)
        actions = self._policy.exited(pid, code, now)
        if self._policy.stopping and state.state != "draining":
            log.error("supervisor_gives_up", child=state.slot.name, code=code, error=error)
        self._act(actions)

    def _grow(self) -> None:
        """Run one worker more."""
        number = len(self._workers)
        program = self._settings.another(number)
        log.info("worker_added", workers=number + 1)
        self._workers.append(program.slot.name)
        self._programs[program.slot.name] = program
        self._act(self._policy.grow(program.slot))

    def _shrink(self, now: float) -> None:
        """Run one worker less, but one always."""
        if len(self._workers) == 1 or self._policy.stopping:
            return
        name = self._workers.pop()
        log.info("worker_removed", workers=len(self._workers))
        self._act(self._policy.shrink(name, now))
        self._programs.pop(name).close()

    def _end_orphans(self) -> None:
        """Once all workers are ready, let those go that another supervisor left behind."""
        current = [self._policy.slots[name].current for name in self._workers]
        if all(process is not None and process.state == "ready" for process in current):
            for orphan in self._orphans:
                orphan.end()
            self._orphans.clear()

    def _reload(self, now: float) -> None:
        """Replace all processes if the configuration can be used; else everything stays."""
        try:
            self._settings.check_reload()
        except RagserveError as error:
            log.error("reload_refused", error=error.message)
            return
        log.info("reload_begins")
        self._act(self._policy.reload(now))

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Start(name):
                    process = self._programs[name].start(self._notifications.address)
                    self._processes[process.pid] = process
                    self._policy.started(name, process.pid, time.monotonic())
                    log.info("child_started", child=name, pid=process.pid)
                case Send(pid, number):
                    if number == signal.SIGKILL:
                        log.error("child_killed", pid=pid)
                    self._processes[pid].send_signal(number)
                case Exit(code):
                    self._exit_code = code


def command(*arguments: str) -> list[str]:
    """Return the command line that runs ragserve with ``arguments`` in this interpreter."""
    return [sys.executable, "-m", "ragserve", *arguments]


def _cause(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Handle nothing: the wake-up descriptor has the signal's number."""


def _drained(wake: socket.socket) -> bytes:
    try:
        return wake.recv(4096)
    except BlockingIOError:
        return b""
