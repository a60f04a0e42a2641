"""A request's context measures its stages and keeps them within the deadline."""

from __future__ import annotations

import time

import pytest

from ragserve.errors import DeadlineExceeded
from ragserve.flow.context import Context
from ragserve.flow.deadline import deadline_after
from ragserve.flow.principal import reader


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """The monotonic clock, moved by hand."""
    return _Clock(monkeypatch)


def test_timings_say_how_long_each_stage_took(clock: _Clock) -> None:
    """A stage's time is recorded, and one entered twice counts together."""
    context = Context(reader("acme"), deadline_after(60.0, clock.now))
    with context.stage("embed"):
        clock.now += 0.25
    with context.stage("retrieve"):
        clock.now += 0.5
    with context.stage("embed"):
        clock.now += 0.25
    assert context.timings == {"embed": 0.5, "retrieve": 0.5}
    assert context.server_timing() == "embed;dur=500.00, retrieve;dur=500.00"


def test_a_failed_stage_is_timed_too(clock: _Clock) -> None:
    """The time of a stage that failed is not lost."""
    context = Context(reader("acme"), deadline_after(60.0, clock.now))

    def fail() -> None:
        clock.now += 2.0
        raise LookupError

    with pytest.raises(LookupError), context.stage("embed"):
        fail()
    assert context.timings == {"embed": 2.0}


def test_no_stage_begins_past_the_deadline(clock: _Clock) -> None:
    """A request out of time stops before its next stage, which does not run."""
    context = Context(reader("acme"), deadline_after(1.0, clock.now))
    with context.stage("embed"):
        clock.now += 1.0
    ran = []
    with pytest.raises(DeadlineExceeded, match=r"^generate: "), context.stage("generate"):
        ran.append("generate")
    assert ran == []
    assert context.timings == {"embed": 1.0}
