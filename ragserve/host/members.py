"""Who serves on this host: every process has a file in the run directory and holds its lock.

The kernel drops the lock of a process that ends, however it ends, so a file whose lock is free
belongs to nobody any more. A file appears under its name only when it is complete and locked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import msgspec

from ragserve.config import StorageConfig

MEMBER = ".member"
SOCKET = ".sock"
REPLY_BYTES = 4096
"""A process's answer about itself is shorter."""
WORKER = "RAGSERVE_WORKER"
"""A worker's number, from the supervisor or the systemd unit."""
SUPERVISOR = "RAGSERVE_SUPERVISOR"
"""The process id of the ``ragserve serve`` that started a process."""


class Identity(msgspec.Struct, frozen=True):
    """A process: ``name`` is a worker's number or ``ingester``, ``started`` is monotonic time.

    ``supervisor`` is the process id of its ``ragserve serve``; 0 if it has none.
    """

    id: str
    name: str
    pid: int
    started: float
    supervisor: int = 0


def run_directory(config: StorageConfig, data_dir: Path, environ: Mapping[str, str]) -> Path:
    """Return where this host's processes meet; RUNTIME_DIRECTORY is systemd's."""
    if config.run_dir:
        return Path(config.run_dir).expanduser().absolute()
    if environ.get("RUNTIME_DIRECTORY"):
        return Path(environ["RUNTIME_DIRECTORY"].split(":")[0])
    return data_dir / "run"


def this_process(name: str, environ: Mapping[str, str]) -> Identity:
    """Return a new identity of this process; ``id`` is never used twice."""
    pid = os.getpid()
    supervisor = int(environ.get(SUPERVISOR, "0"))
    token = os.urandom(3).hex()
    return Identity(f"{name}-{pid}-{token}", name, pid, time.monotonic(), supervisor)


def enter(directory: Path, identity: Identity) -> IO[bytes]:
    """Show this process to the others, for as long as the returned file is open."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{identity.id}{MEMBER}"
    new = path.with_suffix(".new")
    file = new.open("xb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(msgspec.json.encode(identity))
    new.rename(path)
    return file


def members(directory: Path) -> tuple[list[Identity], list[Identity]]:
    """Return who lives and who has died without being forgotten, each by name, oldest first."""
    living: list[Identity] = []
    dead: list[Identity] = []
    for path in directory.glob(f"*{MEMBER}"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            identity = msgspec.json.decode(file.read(), type=Identity)
            (living if _is_locked(file) else dead).append(identity)
    for found in (living, dead):
        found.sort(key=lambda identity: (_number(identity.name), identity.started))
    return living, dead


def labels(living: list[Identity]) -> dict[str, str]:
    """Return a name for each id: the newest of a name has it, its predecessors add their pid."""
    newest = {identity.name: identity.id for identity in living}
    return {
        identity.id: identity.name
        if newest[identity.name] == identity.id
        else f"{identity.name}-{identity.pid}"
        for identity in living
    }


@contextlib.contextmanager
def address(directory: Path, identity: Identity) -> Iterator[str]:
    """Yield a socket's address; by way of the directory's descriptor it is short enough always."""
    descriptor = os.open(directory, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}/{identity.id}{SOCKET}"
    finally:
        os.close(descriptor)


def _is_locked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _number(name: str) -> tuple[int, str]:
    """Sort workers by number, and before everything else."""
    return (int(name), "") if name.isdecimal() else (2**31, name)
