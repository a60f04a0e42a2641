"""The regression gate: real servers, processor time against aiohttp alone."""

from __future__ import annotations

from pathlib import Path

from bench.gate import ratios, too_slow


def test_what_is_too_slow_is_named() -> None:
    """The bound and the figure are in the message."""
    fine = {"ragserve": 0.4, "ragserve, lane off": 2.2}
    assert too_slow(fine) == []
    assert too_slow({**fine, "ragserve": 1.5}) == [
        "ragserve: 1.5 x the processor time of aiohttp alone, the bound is 0.8"
    ]


def test_no_path_has_become_much_slower(tmp_path: Path) -> None:
    """Neither the express lane nor the ordinary path costs twice what it did."""
    assert too_slow(ratios(tmp_path)) == []
