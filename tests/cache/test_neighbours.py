"""Similar questions: nearest first, of one partition, with the same numbers."""

from __future__ import annotations

import numpy as np

from ragserve.cache.neighbours import QUESTIONS, Array, Neighbours


def at(degrees: float) -> Array:
    """A unit vector in a plane."""
    radians = np.radians(degrees)
    return np.array([np.cos(radians), np.sin(radians), 0.0, 0.0], np.float32)


def test_the_nearest_come_first() -> None:
    """Those at least as similar as the threshold, and no others."""
    neighbours = Neighbours(2**20)
    for degrees in (40, 10, 25, 90):
        neighbours.add(b"p", "lunch", at(degrees), b"%d" % degrees)
    assert neighbours.find(b"p", "lunch", at(0), 0.9) == [b"10", b"25"]
    assert neighbours.find(b"p", "lunch", at(0), 0.999) == []
    assert neighbours.find(b"p", "lunch", at(90), 1.0 - 1e-6) == [b"90"]


def test_another_partition_has_other_questions() -> None:
    """What was asked elsewhere is not looked at."""
    neighbours = Neighbours(2**20)
    neighbours.add(b"p", "lunch", at(0), b"key")
    assert neighbours.find(b"q", "lunch", at(0), 0.0) == []


def test_other_numbers_are_another_question() -> None:
    """Vectors hardly tell years apart, people do."""
    neighbours = Neighbours(2**20)
    neighbours.add(b"p", "profit in 2023?", at(0), b"2023")
    assert neighbours.find(b"p", "profit in 2024?", at(0), 0.9) == []
    assert neighbours.find(b"p", "what was 2023's profit", at(1), 0.9) == [b"2023"]


def test_memory_is_bounded() -> None:
    """The oldest question of a partition and the oldest partition make room."""
    neighbours = Neighbours(150_000)
    for number in range(QUESTIONS + 1):
        neighbours.add(b"p", "lunch", at(0), b"%d" % number)
    found = neighbours.find(b"p", "lunch", at(0), 0.9)
    assert (len(found), b"0" in found, b"1" in found) == (QUESTIONS, False, True)
    for name in (b"q", b"r", b"s"):
        neighbours.add(name, "lunch", at(0), b"key")
    assert neighbours.find(b"p", "lunch", at(0), 0.9) == []
    assert repr(neighbours) == "<Neighbours <LocalCache 2 entries, 110592 of 150000 bytes>>"
