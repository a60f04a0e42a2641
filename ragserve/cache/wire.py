"""Values as they lie in the second tier. Pure.

A version byte, a byte of flags, a digest of all that and of the key, the value, compressed if it
is large. Whatever does not look exactly like that, be it from another release, damaged, or the
reply to somebody else's question, is no value at all.
"""

from __future__ import annotations

import zlib
from hashlib import blake2b

VERSION = 1
COMPRESSED = 1
CHECK_BYTES = 8
HEAD_BYTES = 2 + CHECK_BYTES
COMPRESS_FROM = 4096
"""Below, compressing (level 1: 20 µs per 4 KB) costs more than sending."""
MAX_BYTES = 32 * 1024**2
"""Nothing of ours is larger; a damaged or hostile value may claim to be."""


def pack(key: str, value: bytes) -> bytes:
    """Return what is stored under ``key``."""
    flags = 0
    if len(value) >= COMPRESS_FROM:
        flags = COMPRESSED
        value = zlib.compress(value, 1)
    head = bytes((VERSION, flags))
    return head + _check(key, head, value) + value


def unpack(key: str, data: bytes | None) -> bytes | None:
    """Return the value stored under ``key``, or None if ``data`` is nothing of the kind."""
    if data is None or len(data) < HEAD_BYTES or data[0] != VERSION or data[1] > COMPRESSED:
        return None
    value = data[HEAD_BYTES:]
    if data[2:HEAD_BYTES] != _check(key, data[:2], value):
        return None
    if not data[1]:
        return value
    inflate = zlib.decompressobj()
    try:
        value = inflate.decompress(value, MAX_BYTES)
    except zlib.error:
        return None
    return value if inflate.eof and not inflate.unused_data else None


def _check(key: str, head: bytes, value: bytes) -> bytes:
    return blake2b(value, key=key.encode()[-64:], salt=head, digest_size=CHECK_BYTES).digest()
