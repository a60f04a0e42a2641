"""A dict of at most so many entries: the one that was added first makes room."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(OrderedDict[K, V]):
    """At most ``bound`` entries. (The first one of a plain dict is slow to find, see ``Buckets``.)

    >>> kept = Bounded(2)
    >>> kept[1] = kept[2] = kept[3] = "x"
    >>> list(kept)
    [2, 3]
    """

    def __init__(self, bound: int) -> None:
        super().__init__()
        self._bound = bound

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._bound:
            del self[next(iter(self))]
