"""One trial a host: the workers' breakers of one server take turns by the lock of a file.

Whoever holds the lock tries; the kernel drops it if that process dies. The file says not before
when the next trial may be, and counts those that worked: a worker whose breaker is open sees there
that another one got through, and tries at once instead of waiting for its own turn.

Times are the monotonic clock's, which is the same for all processes of a host and begins anew with
it (clock_gettime(2)): what lies further ahead than any pause is from before.
"""

from __future__ import annotations

import fcntl
import os
import struct
from hashlib import blake2b
from pathlib import Path

DIRECTORY = "trials"
LONGEST_PAUSE_S = 60.0
_RECORD = struct.Struct("<dQ")  # not before, successes


class HostTrials:
    """``flow.breaker.Trials`` of all processes that name the same file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._name = path.name
        self._mine = False

    def try_begin(self, now: float) -> bool:
        """Return whether this process is the one to try now."""
        if self._mine:
            return False  # it does so already
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._mine = True
        not_before, _ = self._read()
        if now < not_before <= now + LONGEST_PAUSE_S:
            self.give_back()
            return False
        return True

    def worked(self) -> None:
        """Have all others try at once."""
        if self._mine:
            self._write(0.0, self.successes() + 1)
            self.give_back()

    def failed(self, retry_at: float) -> None:
        """Have nobody try before ``retry_at``."""
        if self._mine:
            self._write(retry_at, self.successes())
            self.give_back()

    def give_back(self) -> None:
        """Let another one try."""
        if self._mine:
            self._mine = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def successes(self) -> int:
        """Return how many trials of this host have worked."""
        return self._read()[1]

    def close(self) -> None:
        """Let go of the file, and of the trial."""
        self._mine = False
        os.close(self._file)

    def _read(self) -> tuple[float, int]:
        data = os.pread(self._file, _RECORD.size, 0)
        if len(data) < _RECORD.size:
            return 0.0, 0  # nobody has tried yet
        not_before, successes = _RECORD.unpack(data)
        return not_before, successes

    def _write(self, not_before: float, successes: int) -> None:
        os.pwrite(self._file, _RECORD.pack(not_before, successes), 0)

    def __repr__(self) -> str:
        return f"<HostTrials {self._name}{', trying' if self._mine else ''}>"


class TrialFiles:
    """The files of one run directory; called with a server's name, it returns its trials."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / DIRECTORY
        self._opened: list[HostTrials] = []

    def __call__(self, name: str) -> HostTrials:
        """Return the trials of the server that all processes of this host call ``name``."""
        path = self._directory / blake2b(name.encode(), digest_size=12).hexdigest()
        trials = HostTrials(path)
        self._opened.append(trials)
        return trials

    def close(self) -> None:
        """Let go of all files."""
        while self._opened:
            self._opened.pop().close()

    def __repr__(self) -> str:
        return f"<TrialFiles {self._directory}>"
