"""A queue that is fair between tenants: deficit round robin. Pure.

Each tenant has a line, and the lines take turns (Shreedhar, Varghese, "Efficient Fair Queuing
using Deficit Round Robin", 1995), so a tenant who asks a thousand things at once waits for itself.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")

QUANTUM = 1
"""What a line may cost each time it has its turn."""


class _Line(Generic[T]):
    __slots__ = ("credit", "items")

    def __init__(self) -> None:
        self.items: deque[tuple[int, T]] = deque()
        self.credit = 0


class FairQueue(Generic[T]):
    """Items of tenants, each with a cost of 1 or more."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line[T]] = OrderedDict()
        self._length = 0
        self._longer = [0]
        """How many lines have more than so many items."""

    def push(self, tenant: str, item: T, cost: int = 1) -> None:
        """Put an item at the end of its tenant's line."""
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = _Line()
        length = len(line.items)
        line.items.append((cost, item))
        self._length += 1
        if length == len(self._longer):
            self._longer.append(0)
        self._longer[length] += 1

    def pop(self, *, newest: bool = False) -> T:
        """Take the next line's oldest item, or its ``newest``; raise ``IndexError`` if empty."""
        while self._lines:
            tenant, line = next(iter(self._lines.items()))
            cost, item = line.items[-1 if newest else 0]
            if line.credit < cost:
                line.credit += QUANTUM
                if line.credit < cost:
                    self._lines.move_to_end(tenant)
                    continue
            line.credit -= cost
            self._take(tenant, line, newest=newest)
            return item
        raise IndexError("the queue is empty")

    def discard(self, tenant: str, item: T) -> None:
        """Remove an item whose owner has left."""
        line = self._lines.get(tenant)
        if line is None:
            return
        for entry in line.items:
            if entry[1] is item:
                line.items.remove(entry)
                self._shorten(line)
                break
        if not line.items:
            del self._lines[tenant]

    def oldest(self) -> T | None:
        """Return the oldest item of the line whose turn it is."""
        line = next(iter(self._lines.values()), None)
        return None if line is None else line.items[0][1]

    def rank(self, tenant: str) -> int:
        """Return how many items an item of ``tenant`` would come behind."""
        line = self._lines.get(tenant)
        own = 0 if line is None else len(line.items)
        if own == self._length:
            return own
        # Its own line has none to its own + 1st item, others at most so many before that.
        return sum(self._longer[: own + 1])

    def _shorten(self, line: _Line[T]) -> None:
        """Take note of a line's loss of an item."""
        self._length -= 1
        self._longer[len(line.items)] -= 1

    def _take(self, tenant: str, line: _Line[T], *, newest: bool) -> None:
        if newest:
            line.items.pop()
        else:
            line.items.popleft()
        self._shorten(line)
        if not line.items:
            del self._lines[tenant]
        else:
            self._lines.move_to_end(tenant)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<FairQueue {self._length} items of {len(self._lines)} tenants>"
