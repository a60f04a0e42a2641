"""A deadline is one moment, the same for every stage."""

from __future__ import annotations

import pytest

from ragserve.errors import DeadlineExceeded
from ragserve.flow.deadline import Deadline, deadline_after


def test_a_deadline_is_absolute() -> None:
    """Time spent in one stage is missing in the next."""
    deadline = deadline_after(60.0, now=100.0)
    assert deadline == Deadline(at=160.0, budget_s=60.0)
    assert deadline.remaining_s(100.0) == 60.0
    assert deadline.remaining_s(159.0) == 1.0


def test_nothing_is_left_after_the_deadline() -> None:
    """What remains is never negative, however late it is."""
    deadline = deadline_after(1.0, now=0.0)
    assert deadline.remaining_s(1.0) == 0.0
    assert deadline.remaining_s(5.0) == 0.0


def test_a_late_stage_is_refused_by_name() -> None:
    """A stage may begin until the last moment; then the error names it and the budget."""
    deadline = deadline_after(2.5, now=0.0)
    deadline.check(2.49, "retrieve")
    with pytest.raises(DeadlineExceeded) as refused:
        deadline.check(2.5, "retrieve")
    assert refused.value.message == "retrieve: the request's 2.5 s are used up"
