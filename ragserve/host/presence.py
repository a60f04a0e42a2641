"""This process among those of its host: seen by the others, and answering their questions.

Over its socket in the run directory a process is asked one thing a connection: ``state``,
``report`` (bring the totals on disk up to date, then say the state) or ``listener`` (the state,
with a duplicate of the listening socket, for a supervisor that takes over).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import msgspec
from prometheus_client import REGISTRY

from ragserve import __version__
from ragserve.host.lag import measure_lag
from ragserve.host.ledger import Ledger
from ragserve.host.members import Identity, address, enter
from ragserve.host.totals import Families, snapshot
from ragserve.metrics import (
    BUILD,
    PROCESS_STARTS,
    PROCESS_STOPS,
    WORKER_RSS,
    WORKER_STARTED,
    WORKER_UP,
)

QUESTION_BYTES = 16
QUESTION_S = 1.0
BACKLOG = 64


Phase = Literal["starting", "ready", "draining"]


class State(msgspec.Struct, frozen=True):
    """What a process says of itself. ``core`` is None unless it is bound to one.

    ``version`` is None if it is older than this field: during an upgrade processes of two releases
    see each other.
    """

    identity: Identity
    phase: Phase
    core: int | None
    version: str | None = None


class Presence:
    """A process's entry in the run directory while it is ``entered``.

    ``phase`` says where in its life it is; ``listener`` is a worker's listening socket.
    """

    def __init__(
        self,
        directory: Path,
        identity: Identity,
        phase: Callable[[], Phase],
        listener: socket.socket | None = None,
    ) -> None:
        self.directory = directory
        self.identity = identity
        self.ledger = Ledger(directory)
        self._phase = phase
        self._listener = listener
        self._answering: set[asyncio.Task[None]] = set()
        self._kind = "worker" if identity.name.isdecimal() else identity.name

    @contextlib.asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Be there for the others; leave them the final totals."""
        loop = asyncio.get_running_loop()
        lag = asyncio.create_task(measure_lag(), name="lag")
        with (
            enter(self.directory, self.identity),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked,
        ):
            self._open(asked)
            loop.add_reader(asked, self._accept, asked)
            try:
                yield
                PROCESS_STOPS.labels(self._kind).inc()
            finally:
                loop.remove_reader(asked)
                for task in (lag, *self._answering):
                    task.cancel()
                self.report()

    def _open(self, asked: socket.socket) -> None:
        WORKER_STARTED.set(time.time())
        BUILD.labels(__version__).set(1)
        PROCESS_STARTS.labels(self._kind).inc()
        PROCESS_STOPS.labels(self._kind)  # 0 is to be seen, too: then a first one shows as a rise
        WORKER_UP.set(1)
        WORKER_RSS.set_function(resident_bytes)
        self.ledger.try_fold()
        self.report()
        asked.setblocking(False)
        with address(self.directory, self.identity) as name:
            asked.bind(name)
        asked.listen(BACKLOG)

    def report(self) -> Families:
        """Write the totals of this process for whoever reads them; return them, too."""
        families = snapshot(REGISTRY.collect())
        self.ledger.write(self.identity, families)
        return families

    def state(self) -> State:
        """Say how this process does."""
        cores = os.sched_getaffinity(0)
        core = min(cores) if len(cores) == 1 else None
        return State(self.identity, self._phase(), core, __version__)

    def _accept(self, asked: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = asked.accept()
            connection.setblocking(False)
            task = asyncio.create_task(self._answer(connection))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(QUESTION_S):
                question = await loop.sock_recv(connection, QUESTION_BYTES)
            fds: list[int] = []
            match question:
                case b"report":
                    self.report()
                case b"listener" if self._listener is not None:
                    fds = [self._listener.fileno()]
            # Far below a socket's buffer: this never waits.
            socket.send_fds(connection, [msgspec.json.encode(self.state())], fds)

    def __repr__(self) -> str:
        return f"<Presence {self.identity.id} in {self.directory}, {self._phase()}>"


def resident_bytes() -> int:
    """Return this process's resident memory, see proc_pid_statm(5)."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")
