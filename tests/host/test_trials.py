"""One trial a host: what several processes have given up, one of them tries again."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragserve.flow.breaker import Breaker
from ragserve.host.trials import LONGEST_PAUSE_S, HostTrials, TrialFiles

NAME = "language model http://127.0.0.1:1/v1"


@pytest.fixture
def files(tmp_path: Path) -> Iterator[TrialFiles]:
    opened = TrialFiles(tmp_path)
    yield opened
    opened.close()


def opened(trials: HostTrials) -> Breaker:
    """A worker's breaker after its three failures."""
    breaker = Breaker(base_s=1.0, cap_s=8.0, rng=random.Random(1), trials=trials)
    for _ in range(3):
        breaker.failed(0.0)
    return breaker


def test_one_of_them_tries(files: TrialFiles) -> None:
    """After the pause one call of one worker passes, however long it takes to end."""
    one, other = opened(files(NAME)), opened(files(NAME))
    assert [breaker.try_pass(1.0) for breaker in (one, other, one, other)] == [
        True,
        False,
        False,
        False,
    ]
    assert not any(breaker.try_pass(60.0) for breaker in (one, other))
    one.abandoned()
    assert other.try_pass(60.0)


def test_a_failed_trial_counts_for_all(files: TrialFiles) -> None:
    """Nobody tries before the pause of whoever tried last is over."""
    one, other = opened(files(NAME)), opened(files(NAME))
    assert one.try_pass(1.0)
    one.failed(1.0)
    assert one.retry_at > other.retry_at
    assert not other.try_pass(one.retry_at - 0.01)
    assert other.try_pass(one.retry_at)


def test_a_success_is_everybodys(files: TrialFiles) -> None:
    """Those who would still wait pass at once when another one has got through."""
    one, other = opened(files(NAME)), opened(files(NAME))
    other.retry_at = 1000.0
    assert one.try_pass(1.0)
    assert not other.try_pass(1.0)
    one.succeeded()
    assert one.try_pass(1.0)
    assert other.try_pass(1.0)
    other.failed(1.0)
    assert not other.try_pass(1.5), "it works for one of them only"


def test_servers_are_tried_one_by_one(files: TrialFiles) -> None:
    """The trial of one server says nothing of another."""
    one, other = opened(files(NAME)), opened(files("embedder"))
    assert one.try_pass(1.0)
    assert other.try_pass(1.0)


def test_what_was_before_a_restart_is_forgotten(files: TrialFiles) -> None:
    """The monotonic clock begins anew with the host; an old time must not bind anybody."""
    one, other = files(NAME), files(NAME)
    assert one.try_begin(10_000.0)
    one.failed(10_008.0)
    assert not other.try_begin(10_001.0)
    assert other.try_begin(10_008.0 - LONGEST_PAUSE_S - 1)


def _try_and_wait(path: Path, told: multiprocessing.connection.Connection) -> None:
    told.send(HostTrials(path).try_begin(1.0))
    told.recv()


def test_a_dead_process_tries_no_more(tmp_path: Path) -> None:
    """The trial of a worker that was killed goes to another one."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    path = tmp_path / "trials" / "x"
    process = context.Process(target=_try_and_wait, args=(path, there))
    process.start()
    assert here.recv() is True
    mine = HostTrials(path)
    assert not mine.try_begin(1.0)
    process.kill()
    process.join()
    assert mine.try_begin(1.0)
    mine.close()
