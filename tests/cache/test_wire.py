"""Stored values: what comes out is what went in under that key, or nothing."""

from __future__ import annotations

import os
import zlib

from hypothesis import example, given
from hypothesis import strategies as st

from ragserve.cache.wire import COMPRESS_FROM, HEAD_BYTES, VERSION, _check, pack, unpack

KEY = "ragserve:answer:{00ff}"
HEAD = bytes((VERSION, 1))


@given(st.text(max_size=100), st.binary(max_size=100))
@example("", b"x" * COMPRESS_FROM)
def test_what_went_in_comes_out(key: str, value: bytes) -> None:
    """Under the same key, unchanged."""
    assert unpack(key, pack(key, value)) == value


def test_large_values_are_compressed() -> None:
    """From 4 KiB on."""
    assert len(pack(KEY, b"x" * (COMPRESS_FROM - 1))) == COMPRESS_FROM - 1 + HEAD_BYTES
    assert len(pack(KEY, b"x" * COMPRESS_FROM)) < 100
    noise = os.urandom(COMPRESS_FROM)
    assert unpack(KEY, pack(KEY, noise)) == noise


@given(st.binary(max_size=60))
def test_what_is_not_ours_is_nothing(data: bytes) -> None:
    """Arbitrary bytes are no value."""
    assert unpack(KEY, data) is None
    assert unpack(KEY, bytes((VERSION, 0)) + data) is None


@given(st.integers(0), st.integers(1, 255), st.booleans())
def test_damage_is_noticed(position: int, change: int, large: bool) -> None:
    """Any changed byte, and any cut, makes a value nothing."""
    packed = bytearray(pack(KEY, b"some value" * (1000 if large else 1)))
    position %= len(packed)
    assert unpack(KEY, bytes(packed[:position])) is None
    packed[position] ^= change
    assert unpack(KEY, bytes(packed)) is None


def test_another_keys_value_is_nothing() -> None:
    """A reply to somebody else's question is not taken for ours."""
    assert unpack("ragserve:answer:{00fe}", pack(KEY, b"value")) is None
    assert unpack(KEY, None) is None


def test_other_releases_values_are_nothing() -> None:
    """Old and future formats are misses."""
    for version in (0, 2, 255):
        assert unpack(KEY, bytes((version,)) + pack(KEY, b"value")[1:]) is None


def test_a_bomb_is_not_inflated() -> None:
    """A value that claims to be larger than any of ours is nothing, at bounded cost."""
    bomb = zlib.compress(bytes(64 * 1024**2), 9)
    assert unpack(KEY, HEAD + _check(KEY, HEAD, bomb) + bomb) is None
    trailing = zlib.compress(b"value") + b"more"
    assert unpack(KEY, HEAD + _check(KEY, HEAD, trailing) + trailing) is None
