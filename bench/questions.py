"""Which question is asked next: a real file of questions, some asked far more often than others."""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path

QUESTIONS = Path(__file__).parent / "questions.jsonl"


def read_questions(path: Path) -> list[str]:
    """Return the texts of a queries.jsonl (``{"text": …}`` a line), in their order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines if line.strip()]


class Zipf:
    """Picks one of ``count`` things; the k-th is picked 1 / k**exponent as often as the first.

    An exponent of 0 picks all equally often.
    """

    def __init__(self, count: int, exponent: float, seed: int) -> None:
        if count < 1:
            raise ValueError("there must be something to pick from")
        self._sums = list(accumulate(1 / rank**exponent for rank in range(1, count + 1)))
        self._random = random.Random(seed)

    def pick(self) -> int:
        """Return an index."""
        return bisect_left(self._sums, self._random.random() * self._sums[-1])
