"""The counters of a host's processes on disk, so that a total never falls.

A process writes its totals before anybody reads them, so what a scrape has shown survives its
kill -9. The totals of ended processes are folded into one file: the new sum is renamed into
place together with the names of what went into it, and only then are those files removed. A crash
in between leaves files that readers skip. Reading takes no lock: a fold between two looks at the
sum shows by its number, and the reading is repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path

import msgspec

from ragserve.errors import Unavailable
from ragserve.host.members import MEMBER, SOCKET, Identity, members
from ragserve.host.totals import Families, add

TOTALS = ".totals"
READINGS = 100
"""Folds follow deaths; so many during one reading are a defect."""


class Ended(msgspec.Struct, frozen=True):
    """The sum over ended processes; ``folded`` are those whose files may still be there."""

    number: int = 0
    folded: tuple[str, ...] = ()
    families: Families = ()


_encode = msgspec.msgpack.Encoder().encode
_decode_families = msgspec.msgpack.Decoder(Families).decode
_decode_ended = msgspec.msgpack.Decoder(Ended).decode


class Ledger:
    """The files of one run directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended = directory / "ended"

    def write(self, identity: Identity, families: Families) -> None:
        """Note a process's totals."""
        _replace(self._directory / f"{identity.id}{TOTALS}", _encode(families))

    def read(self) -> tuple[Families, dict[str, Families]]:
        """Return the sum over ended processes and the totals of the others by id."""
        for _ in range(READINGS):
            ended = self._read_ended()
            totals = {}
            for path in self._directory.glob(f"*{TOTALS}"):
                with contextlib.suppress(FileNotFoundError):
                    totals[path.name.removesuffix(TOTALS)] = _decode_families(path.read_bytes())
            if self._read_ended().number == ended.number:
                for id_ in ended.folded:
                    totals.pop(id_, None)
                return ended.families, totals
        raise Unavailable(f"{self._directory}: totals changed {READINGS} times while read")

    def try_fold(self) -> None:
        """Add up and forget the processes that have ended, unless somebody does so now."""
        with (self._directory / "ended.lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            ended = self._read_ended()
            self._forget(ended.folded)
            _, dead = members(self._directory)
            if not dead:
                return
            parts = [ended.families]
            for identity in dead:
                with contextlib.suppress(FileNotFoundError):
                    path = self._directory / f"{identity.id}{TOTALS}"
                    parts.append(_decode_families(path.read_bytes()))
            folded = tuple(identity.id for identity in dead)
            _replace(self._ended, _encode(Ended(ended.number + 1, folded, add(parts))))
            self._forget(folded)

    def start_anew(self) -> None:
        """Forget all totals; for a host on which nothing serves yet."""
        self.try_fold()
        self._ended.unlink(missing_ok=True)

    def _read_ended(self) -> Ended:
        try:
            return _decode_ended(self._ended.read_bytes())
        except FileNotFoundError:
            return Ended()

    def _forget(self, ids: tuple[str, ...]) -> None:
        # The member's file goes last: while it is there, the rest is found again.
        for id_ in ids:
            for suffix in (TOTALS, f"{TOTALS}.new", SOCKET, MEMBER):
                (self._directory / f"{id_}{suffix}").unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is there completely or not at all, whenever this process dies."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.rename(path)
