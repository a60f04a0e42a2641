"""Questions that mean nearly the same: the vectors of those whose answers are kept. Pure.

Only questions of one partition, that is of one collection at one version with the same filter and
everything else, are compared. Vectors hardly tell "in 2023" from "in 2024" or "room 5" from "room
6", so the numbers in two questions must be the same, too.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from ragserve.cache.local import LocalCache

Array = npt.NDArray[np.float32]

QUESTIONS = 256
"""Remembered per partition; the oldest makes room. Comparing with all takes 15 µs."""
_NUMBER = re.compile(r"\d+")


class _Partition:
    __slots__ = ("added", "keys", "numbers", "vectors")

    def __init__(self, dimensions: int) -> None:
        self.vectors: Array = np.zeros((QUESTIONS, dimensions), np.float32)
        self.keys: list[bytes] = [b""] * QUESTIONS
        self.numbers: list[frozenset[str]] = [frozenset()] * QUESTIONS
        self.added = 0


class Neighbours:
    """Keys of answers by partition and unit vector, within ``capacity_bytes``."""

    def __init__(self, capacity_bytes: int) -> None:
        self._partitions: LocalCache[bytes, _Partition] = LocalCache(capacity_bytes)

    def add(self, partition: bytes, question: str, vector: Array, key: bytes) -> None:
        """Remember the key of a question's answer."""
        known = self._partitions.get(partition, 0.0)
        if known is None:
            known = _Partition(len(vector))
            self._partitions.put(partition, known, known.vectors.nbytes + 200 * QUESTIONS)
        place = known.added % QUESTIONS
        known.vectors[place] = vector
        known.keys[place] = key
        known.numbers[place] = numbers_of(question)
        known.added += 1

    def find(self, partition: bytes, question: str, vector: Array, threshold: float) -> list[bytes]:
        """Return the keys of questions at least as similar as ``threshold``, nearest first."""
        known = self._partitions.get(partition, 0.0)
        if known is None:
            return []
        similarities = known.vectors @ vector
        (near,) = np.nonzero(similarities >= threshold)
        numbers = numbers_of(question)
        return [
            known.keys[place]
            for place in sorted(near, key=lambda place: -similarities[place])
            if known.keys[place] and known.numbers[place] == numbers
        ]

    def __repr__(self) -> str:
        return f"<Neighbours {self._partitions!r}>"


def numbers_of(question: str) -> frozenset[str]:
    """Return the numbers in a question."""
    return frozenset(_NUMBER.findall(question))
