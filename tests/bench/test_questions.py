"""The mix of questions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.questions import Zipf, read_questions


def test_the_first_is_asked_most() -> None:
    """With exponent 1 the second thing is picked half as often as the first."""
    picks = Zipf(100, 1.0, seed=7)
    seen = Counter(picks.pick() for _ in range(20_000))
    assert seen[0] == pytest.approx(2 * seen[1], rel=0.1)
    assert set(seen) <= set(range(100))


def test_exponent_zero_is_uniform() -> None:
    """With exponent 0 all are picked equally often."""
    picks = Zipf(4, 0.0, seed=7)
    seen = Counter(picks.pick() for _ in range(20_000))
    assert all(count == pytest.approx(5000, rel=0.1) for count in seen.values())


def test_the_seed_decides() -> None:
    """The same seed asks the same questions in the same order."""
    one, other = Zipf(50, 1.0, seed=3), Zipf(50, 1.0, seed=3)
    assert [one.pick() for _ in range(100)] == [other.pick() for _ in range(100)]


def test_questions_are_read(tmp_path: Path) -> None:
    """Empty lines are none."""
    path = tmp_path / "queries.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b"}\n', encoding="utf-8")
    assert read_questions(path) == ["a", "b"]
