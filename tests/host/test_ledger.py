"""Totals on disk: they survive whoever counted them, once each, at every point of a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ragserve.host.ledger import Ledger
from ragserve.host.members import Identity, enter, labels, members
from ragserve.host.totals import Families, Family, Sample, value


def counted(number: int) -> Families:
    """Return a counter's total."""
    return (Family("c", "counter", "C.", (Sample("c_total", (), number),)),)


class Host:
    """Processes in a run directory; those of ``enter`` live until ``end``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ledger = Ledger(directory)
        self.lives: dict[str, ExitStack] = {}

    def enter(self, name: str, number: int, started: float = 0.0) -> Identity:
        identity = Identity(f"{name}-{len(self.lives)}", name, os.getpid(), started)
        life = self.lives[identity.id] = ExitStack()
        life.enter_context(enter(self.directory, identity))
        self.ledger.write(identity, counted(number))
        return identity

    def end(self, identity: Identity) -> None:
        self.lives[identity.id].close()

    def total(self) -> float:
        ended, living = self.ledger.read()
        return value(ended, "c_total") + sum(value(part, "c_total") for part in living.values())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host without processes."""
    host = Host(tmp_path)
    yield host
    for life in host.lives.values():
        life.close()


def test_totals_outlive_their_process(host: Host) -> None:
    """Before and after it is folded, an ended process counts once, and its files go."""
    one, two = host.enter("0", 5), host.enter("1", 7)
    assert host.total() == 12
    host.end(one)
    assert host.total() == 12
    host.ledger.try_fold()
    assert host.total() == 12
    assert [path.name for path in host.directory.glob("*.totals")] == [f"{two.id}.totals"]
    host.ledger.try_fold()
    assert host.total() == 12
    assert members(host.directory) == ([two], [])


def test_a_crash_while_folding_counts_nothing_twice(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the sum was written and before a file was removed: the sum is still right."""
    host.end(host.enter("0", 5))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _killed)
        with pytest.raises(KeyboardInterrupt):
            host.ledger.try_fold()
    assert list(host.directory.glob("*.totals"))
    assert host.total() == 5
    host.end(host.enter("1", 2))
    host.ledger.try_fold()
    assert host.total() == 7
    assert not list(host.directory.glob("*.totals"))


def _killed(_path: Path, *, missing_ok: bool = False) -> None:
    raise KeyboardInterrupt


def test_a_fold_during_a_reading_is_noticed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process folded between two looks at the sum is neither lost nor counted twice."""
    host.end(host.enter("0", 5))
    glob, folds = Path.glob, []

    def fold_first(path: Path, pattern: str) -> Iterator[Path]:
        if pattern == "*.totals" and not folds:
            folds.append(pattern)
            host.ledger.try_fold()
        return glob(path, pattern)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", fold_first)
        assert host.total() == 5
    assert folds


def test_one_folds_at_a_time(host: Host) -> None:
    """Whoever finds the lock taken leaves the folding to its holder."""
    import fcntl

    host.end(host.enter("0", 5))
    with (host.directory / "ended.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        host.ledger.try_fold()
        assert list(host.directory.glob("*.totals"))
    host.ledger.try_fold()
    assert not list(host.directory.glob("*.totals"))
    assert host.total() == 5


def test_a_host_starts_anew(host: Host) -> None:
    """A supervisor that finds nobody begins with empty totals."""
    host.end(host.enter("0", 5))
    host.ledger.start_anew()
    assert host.total() == 0


def test_members_come_by_number(host: Host) -> None:
    """Workers are sorted as numbers, before the ingest process; the newest has the name."""
    names = ["ingester", "10", "2", "2"]
    entered = [host.enter(name, 0, started) for started, name in enumerate(names)]
    living, _ = members(host.directory)
    assert [one.name for one in living] == ["2", "2", "10", "ingester"]
    assert labels(living) == {
        entered[0].id: "ingester",
        entered[1].id: "10",
        entered[2].id: f"2-{os.getpid()}",
        entered[3].id: "2",
    }
