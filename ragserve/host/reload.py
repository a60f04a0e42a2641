"""SIGHUP to a process that no supervisor of ours replaces: it begins again in its own place.

The configuration is checked first; then the process drains and executes itself anew, with the same
process id and the same listening sockets, in which connections wait meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable

import structlog

from ragserve.errors import RagserveError
from ragserve.host.sockets import LISTEN_FD

log = structlog.get_logger(__name__)


ENDS = (signal.SIGTERM, signal.SIGINT)


class Reload:
    """Sets ``stop`` on SIGTERM, SIGINT, and on SIGHUP if ``check`` does not raise.

    ``wanted`` says whether to begin again; an end that is asked for later goes before that.
    """

    def __init__(self, check: Callable[[], object], stop: asyncio.Event) -> None:
        self.wanted = False
        self._ends = False
        self._check = check
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGHUP, self._begin)
        for number in ENDS:
            self._loop.add_signal_handler(number, self._end)

    def decide(self) -> bool:
        """Return whether to begin again; an end that is asked for from now on is immediate.

        The loop ends after this, and would not see a signal any more.
        """
        if self.wanted:
            for number in ENDS:
                self._loop.remove_signal_handler(number)
        return self.wanted

    def _end(self) -> None:
        self._ends = True
        self.wanted = False
        self._stop.set()

    def _begin(self) -> None:
        if self._ends:
            return
        try:
            self._check()
        except RagserveError as error:
            log.error("reload_refused", error=error.message)
            return
        log.info("reload")
        self.wanted = True
        self._stop.set()


def keep(listeners: Iterable[socket.socket]) -> None:
    """Keep listening sockets open beyond their server, for this process begun again."""
    kept = [os.dup(listener.fileno()) for listener in listeners]
    for fd in kept:
        os.set_inheritable(fd, True)
    os.environ[LISTEN_FD] = ",".join(map(str, kept))


def begin_again() -> None:
    """Execute this program anew; a further SIGHUP is ignored until it can be handled."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ragserve", *sys.argv[1:]])  # noqa: S606
