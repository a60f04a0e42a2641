"""The worst lag of late."""

from __future__ import annotations

from ragserve.host.lag import WINDOW_S, Worst


def test_the_worst_is_remembered_for_a_while() -> None:
    """For at least one window, whenever it was, and for at most two."""
    for at in (0.0, WINDOW_S / 2, WINDOW_S * 0.99):
        worst = Worst()
        worst.note(0.001, 0.0)
        worst.note(0.5, at)
        worst.note(0.002, at + WINDOW_S * 0.99)
        assert worst.amount == 0.5
        worst.note(0.003, 2 * WINDOW_S)
        worst.note(0.004, 3 * WINDOW_S)
        assert worst.amount == 0.004
