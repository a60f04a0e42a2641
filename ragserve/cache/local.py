"""The first tier: an in-process LRU bounded in bytes, with a time to live. Synchronous, no I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    value: V
    size: int
    expires_at: float


class LocalCache(Generic[K, V]):
    """Holds values of known sizes; the least recently used make room for new ones."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.size_bytes = 0
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()

    def get(self, key: K, now: float) -> V | None:
        """Return the value if it is there and has not expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= now:
            self.discard(key)
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: K, value: V, size: int, *, expires_at: float = float("inf")) -> None:
        """Store a value of ``size`` bytes; one larger than the whole cache is not stored."""
        self.discard(key)
        if size > self.capacity_bytes:
            return
        self._entries[key] = _Entry(value, size, expires_at)
        self.size_bytes += size
        while self.size_bytes > self.capacity_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size_bytes -= oldest.size

    def discard(self, key: K) -> None:
        """Forget a key."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size

    def items(self) -> list[tuple[K, V]]:
        """Return all keys and values, least recently used first; expired ones too."""
        return [(key, entry.value) for key, entry in self._entries.items()]

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<LocalCache {len(self)} entries, {self.size_bytes} of {self.capacity_bytes} bytes>"
