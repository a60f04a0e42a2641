"""Percentiles of the latest values."""

from __future__ import annotations

from ragserve.flow.recent import ENOUGH, KEPT, Recent


def test_few_values_say_nothing() -> None:
    """There is no slowest twentieth of less than twenty."""
    recent = Recent()
    for number in range(ENOUGH - 1):
        recent.add(number)
    assert recent.percentile(95) is None
    recent.add(0.0)
    assert recent.percentile(95) is not None


def test_the_percentile_is_that_of_the_latest() -> None:
    """What was measured long ago does not count."""
    recent = Recent()
    for number in range(2 * KEPT):
        recent.add(float(number))
    assert recent.percentile(0) == float(KEPT)
    assert recent.percentile(50) == float(KEPT + KEPT // 2)
    assert recent.percentile(95) == float(KEPT + int(KEPT * 0.95))
    assert recent.percentile(100) == float(2 * KEPT - 1)
