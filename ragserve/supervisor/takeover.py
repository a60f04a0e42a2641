"""Processes whose supervisor was killed: they serve on, and a new supervisor takes over.

Nothing tells a worker that its supervisor is gone, and nothing needs to: it goes on serving. The
next ``ragserve serve`` on the same data directory finds it in the run directory, is given its
listening socket over a Unix socket, starts its own worker on that very socket, and tells the old
one to finish when the new one is ready. Connections wait in the same queue throughout.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from pathlib import Path

from ragserve.errors import Unavailable
from ragserve.host.members import REPLY_BYTES, Identity, address, members
from ragserve.supervisor.log import log

ANSWER_S = 1.0
INGESTER_END_S = 40.0
"""An ingest process finishes the documents it has in hand."""


class Orphan:
    """A living process whose supervisor is not. ``listener`` is None if it has or gives none."""

    def __init__(self, identity: Identity, pidfd: int, listener: socket.socket | None) -> None:
        self.name = identity.name
        self.pid = identity.pid
        self.listener = listener
        self._pidfd = pidfd

    def end(self) -> None:
        """Tell it to finish what it has; one that gave no sign of life is killed."""
        hangs = self.name.isdecimal() and self.listener is None
        number = signal.SIGKILL if hangs else signal.SIGTERM
        log.info("orphan_ended", process=self.name, pid=self.pid, signal=number.name)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, timeout_s: float) -> bool:
        """Return whether it has ended within ``timeout_s``."""
        return bool(select.select([self._pidfd], [], [], timeout_s)[0])

    def __repr__(self) -> str:
        return f"<Orphan {self.name}, pid {self.pid}>"


def find_orphans(directory: Path) -> list[Orphan]:
    """Return the processes of ``directory`` that a supervisor left behind.

    Raises ``Unavailable`` if there are any whose supervisor lives.
    """
    if not directory.is_dir():
        return []
    orphans = []
    for identity in members(directory)[0]:
        if not identity.supervisor:
            continue  # systemd's, or nobody's
        try:
            pidfd = os.pidfd_open(identity.pid)
            if _parent(identity.pid) == identity.supervisor:
                os.close(pidfd)
                raise Unavailable(
                    f"a server works in {directory} already: stop it first"
                    f" (kill {identity.supervisor}), or choose another --data-dir"
                )
        except (ProcessLookupError, FileNotFoundError):
            continue
        orphans.append(Orphan(identity, pidfd, _listener(directory, identity)))
    return orphans


def end_ingester(orphans: list[Orphan]) -> None:
    """End an orphaned ingest process first: it holds the lock that its successor needs."""
    for orphan in [orphan for orphan in orphans if not orphan.name.isdecimal()]:
        orphan.end()
        if not orphan.wait(INGESTER_END_S):
            log.warning("orphan_lingers", process=orphan.name, pid=orphan.pid)
        orphans.remove(orphan)


def _parent(pid: int) -> int:
    """Return the id of a process's parent, see proc_pid_stat(5)."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


def _listener(directory: Path, identity: Identity) -> socket.socket | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(ANSWER_S)
        try:
            with address(directory, identity) as name:
                asked.connect(name)
            asked.sendall(b"listener")
            _, fds, _, _ = socket.recv_fds(asked, REPLY_BYTES, 1)
        except OSError:
            return None
    return socket.socket(fileno=fds[0]) if fds else None
