"""The in-process cache: bounded in bytes, least recently used first out, never stale."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragserve.cache import LocalCache

CAPACITY = 10
FOREVER = float("inf")


def test_the_least_recently_used_makes_room() -> None:
    """Reading a value keeps it; the one unused for longest is given up."""
    cache: LocalCache[str, int] = LocalCache(3)
    for number, key in enumerate("abc"):
        cache.put(key, number, 1)
    assert cache.get("a", 0.0) == 0
    cache.put("d", 3, 1)
    assert [cache.get(key, 0.0) for key in "abcd"] == [0, None, 2, 3]


def test_a_large_value_displaces_as_many_as_it_needs() -> None:
    """The bound is on bytes, not on entries."""
    cache: LocalCache[str, str] = LocalCache(10)
    for key in "abcde":
        cache.put(key, key, 2)
    cache.put("large", "L", 7)
    assert [cache.get(key, 0.0) for key in "abcd"] == [None] * 4
    assert (cache.get("e", 0.0), cache.get("large", 0.0)) == ("e", "L")
    assert repr(cache) == "<LocalCache 2 entries, 9 of 10 bytes>"


def test_an_oversized_value_displaces_nothing_but_its_own_key() -> None:
    """A value larger than the cache is not stored, and an older one of its key is gone."""
    cache: LocalCache[str, str] = LocalCache(10)
    cache.put("a", "old", 1)
    cache.put("b", "kept", 1)
    cache.put("a", "huge", 11)
    assert (cache.get("a", 0.0), cache.get("b", 0.0)) == (None, "kept")
    assert cache.size_bytes == 1


def test_a_value_is_gone_when_its_time_is_over() -> None:
    """A value is served until just before it expires, and its bytes are free afterwards."""
    cache: LocalCache[str, str] = LocalCache(10)
    cache.put("a", "value", 4, expires_at=100.0)
    assert cache.get("a", 99.9) == "value"
    assert cache.get("a", 100.0) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_replacing_counts_the_new_size_only() -> None:
    """A replaced value's bytes are not counted twice."""
    cache: LocalCache[str, str] = LocalCache(10)
    cache.put("a", "old", 9)
    cache.put("a", "new", 3)
    assert (cache.get("a", 0.0), cache.size_bytes, len(cache)) == ("new", 3, 1)


def test_a_cache_of_no_bytes_holds_nothing() -> None:
    """Capacity 0 turns the cache off."""
    cache: LocalCache[str, str] = LocalCache(0)
    cache.put("a", "value", 1)
    assert cache.get("a", 0.0) is None


class _Reference:
    """The same promises, kept by a list in order of use; slow and plain."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, object, int, float]] = []

    def put(self, key: int, value: object, size: int, expires_at: float) -> None:
        self.discard(key)
        if size <= CAPACITY:
            self.entries.append((key, value, size, expires_at))
        while sum(entry[2] for entry in self.entries) > CAPACITY:
            self.entries.pop(0)

    def get(self, key: int, now: float) -> object:
        for entry in self.entries:
            if entry[0] == key:
                self.entries.remove(entry)
                if entry[3] <= now:
                    return None
                self.entries.append(entry)
                return entry[1]
        return None

    def discard(self, key: int) -> None:
        self.entries = [entry for entry in self.entries if entry[0] != key]


_keys = st.integers(0, 5)
_operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            _keys,
            st.integers(0, CAPACITY + 2),
            st.one_of(st.just(FOREVER), st.integers(0, 40)),
        ),
        st.tuples(st.just("get"), _keys),
        st.tuples(st.just("discard"), _keys),
    ),
    max_size=40,
)


@given(operations=_operations)
def test_any_history_gives_what_a_plain_model_gives(operations: list[tuple[object, ...]]) -> None:
    """After any history the cache holds what the promises say, within its bytes."""
    cache: LocalCache[int, object] = LocalCache(CAPACITY)
    reference = _Reference()
    for now, (operation, *arguments) in enumerate(operations):
        match operation, arguments:
            case "put", [int(key), int(size), int() | float() as expires_at]:
                cache.put(key, now, size, expires_at=expires_at)
                reference.put(key, now, size, expires_at)
            case "get", [int(key)]:
                assert cache.get(key, now) == reference.get(key, now)
            case "discard", [int(key)]:
                cache.discard(key)
                reference.discard(key)
        assert cache.size_bytes == sum(entry[2] for entry in reference.entries) <= CAPACITY
        assert len(cache) == len(reference.entries)
