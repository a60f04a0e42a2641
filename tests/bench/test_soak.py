"""The judge of a soak: what it must not let pass, and a run of a minute."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.correctness import Gauge
from bench.soak.clients import Tally, Tenant, _events
from bench.soak.watch import quarters

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("texts", "degraded", "outcome"),
    [
        (["Gauge 3 of north reads 7."], False, "right"),
        (["Gauge 3 of north reads 7."], True, "degraded"),
        (["Gauge 3 of north reads 8."], False, "right"),
        (["Gauge 3 of north reads 6."], False, "stale"),
        (["Gauge 3 of north reads 6."], True, "degraded, old"),
        (["Gauge 3 of south reads 7."], True, "of another tenant"),
        (["Gauge 4 of north reads 7."], True, "wrong"),
        ([], False, "wrong"),
        ([], True, "degraded, empty"),
    ],
)
def test_an_answer_is_judged_by_its_passage(texts: list[str], degraded: bool, outcome: str) -> None:
    """Right, old or foreign: what was acknowledged over a second ago must be known."""
    tally = Tally()
    gauge = Gauge("north", 3)
    now = time.monotonic()
    gauge.acknowledged = [(now - 9, 6), (now - 5, 7), (now - 0.5, 8)]
    Tenant("north", "http://127.0.0.1", "rs_", tally, 1)._judge(
        "search", gauge, now, texts, degraded
    )
    assert tally.counts == {("search", outcome): 1}


def test_only_a_dying_worker_may_lose_a_request() -> None:
    """What was sent before it died or within a second after is its loss, the rest is the host's."""
    tally = Tally()
    now = time.monotonic()
    tally.dying(now - 5, now - 4)
    for sent in (now - 6, now - 3.5, now - 2.5):
        tally.lost("query", sent, ConnectionResetError())
    assert tally.counts == {("query", "lost with a worker"): 2, ("query", "lost"): 1}
    assert tally.examples == ["query, lost: ConnectionResetError()"]


def test_every_outcome_has_its_examples() -> None:
    """A few of each: a thousand of one do not hide the only one of another."""
    tally = Tally()
    for number in range(1000):
        tally.note("search", "wrong", str(number))
    tally.note("query", "stale", "once")
    assert len(tally.examples) == 6
    assert tally.examples[-1] == "query, stale: once"


def test_growth_is_told_by_quarters() -> None:
    """The median of each quarter of what was seen."""
    assert quarters([1.0, 9.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 4.0, 4.0, 5.0]) == [1, 2, 3, 4]


def test_events_are_read_by_name() -> None:
    """Comments and unnamed events are passed over."""
    text = ': hello\n\nevent: delta\ndata: {"text":"a"}\n\nevent: end\ndata: {}\n\n'
    assert _events(text) == [("delta", {"text": "a"}), ("end", {})]


@pytest.mark.nightly
def test_a_minute_of_everything_at_once() -> None:
    """Faults every ten seconds: nothing wrong or foreign, lost only what killed workers held."""
    command = ["bench.soak", "--minutes", "1", "--every", "10", "--dry"]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
