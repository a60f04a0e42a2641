"""The mechanism: processes, the listening socket, signals.

The supervisor opens the listening socket and keeps it, so that connections wait in its queue
while a worker is replaced. It waits on one pipe that signals write to, and on nothing else.
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
from collections.abc import Sequence
from types import FrameType

import structlog

from ragserve.errors import EXIT_FAILURE
from ragserve.supervisor.policy import GiveUp, RestartPolicy

log = structlog.get_logger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
KILL_AFTER_S = 5.0
"""How long after the drain time a child that does not end is killed."""
SECOND_SIGNAL_S = 0.5
"""A second signal ends everything at once; one that follows sooner is the same one, sent to the
process and to its group."""
LISTEN_FD = "RAGSERVE_LISTEN_FD"


class Child:
    """A process to keep alive."""

    def __init__(self, name: str, command: Sequence[str], listener: socket.socket | None) -> None:
        self.name = name
        self.policy = RestartPolicy(random.Random())  # noqa: S311 - jitter
        self.started_at = 0.0
        self.restart_at: float | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command
        self._listener = listener

    def start(self, now: float) -> None:
        """Start the process; it inherits its listening socket."""
        environ = dict(os.environ)
        fds: tuple[int, ...] = ()
        if self._listener is not None:
            fds = (self._listener.fileno(),)
            environ[LISTEN_FD] = str(fds[0])
        self.process = subprocess.Popen(self._command, pass_fds=fds, env=environ)  # noqa: S603
        self.started_at = now
        self.restart_at = None

    def __repr__(self) -> str:
        pid = self.process.pid if self.process else None
        return f"<Child {self.name}, pid {pid}>"


class Supervisor:
    """Runs children until told to stop or until restarting no longer helps."""

    def __init__(self, children: Sequence[Child], drain_timeout_s: float) -> None:
        self._children = children
        self._drain_timeout_s = drain_timeout_s
        self._exit_code = 0
        self._stop_began = 0.0
        self._stopping_until: float | None = None

    def run(self) -> int:
        """Keep the children alive; return the exit code."""
        wake, wake_end = socket.socketpair()
        wake.setblocking(False)
        wake_end.setblocking(False)
        before = {number: signal.signal(number, _noted) for number in SIGNALS}
        before_fd = signal.set_wakeup_fd(wake_end.fileno(), warn_on_full_buffer=False)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(wake, selectors.EVENT_READ)
                for child in self._children:
                    child.start(time.monotonic())
                while self._alive():
                    selector.select(self._timeout(time.monotonic()))
                    self._signals(_drained(wake), time.monotonic())
                    self._reap(time.monotonic())
                    self._start_due(time.monotonic())
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            wake.close()
            wake_end.close()
        return self._exit_code

    def _alive(self) -> bool:
        return any(child.process or child.restart_at is not None for child in self._children)

    def _timeout(self, now: float) -> float | None:
        moments = [child.restart_at for child in self._children if child.restart_at is not None]
        if self._stopping_until is not None:
            moments.append(self._stopping_until)
        return max(0.0, min(moments) - now) if moments else None

    def _signals(self, received: bytes, now: float) -> None:
        for number in received:
            if number in (signal.SIGTERM, signal.SIGINT):
                if self._stopping_until is None:
                    log.info("supervisor_stops", signal=signal.Signals(number).name)
                    self._stop(now)
                elif now - self._stop_began >= SECOND_SIGNAL_S:
                    self._send(signal.SIGKILL)

    def _stop(self, now: float) -> None:
        self._stop_began = now
        self._stopping_until = now + self._drain_timeout_s + KILL_AFTER_S
        for child in self._children:
            child.restart_at = None
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)

    def _reap(self, now: float) -> None:
        for child in self._children:
            if child.process is None or (code := child.process.poll()) is None:
                continue
            pid = child.process.pid
            child.process = None
            if self._stopping_until is not None:
                log.info("child_stopped", child=child.name, code=code)
                continue
            decision = child.policy.exited(code, child.started_at, now)
            log.error("child_died", child=child.name, code=code, pid=pid)
            if isinstance(decision, GiveUp):
                self._exit_code = decision.code or EXIT_FAILURE
                self._stop(now)
                return
            child.restart_at = decision.at

    def _start_due(self, now: float) -> None:
        if self._stopping_until is not None:
            if now >= self._stopping_until:
                self._send(signal.SIGKILL)
            return
        for child in self._children:
            if child.restart_at is not None and now >= child.restart_at:
                child.start(now)
                log.info("child_restarted", child=child.name)


def command(*arguments: str) -> list[str]:
    """Return the command line that runs ragserve with ``arguments`` in this interpreter."""
    return [sys.executable, "-m", "ragserve", *arguments]


def _noted(_number: int, _frame: FrameType | None) -> None:
    """Handle nothing: the wake-up descriptor has the signal's number."""


def _drained(wake: socket.socket) -> bytes:
    try:
        return wake.recv(4096)
    except BlockingIOError:
        return b""
