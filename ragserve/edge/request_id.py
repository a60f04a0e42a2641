"""Request ids: the client's own if it is harmless in logs and headers, a new one otherwise."""

from __future__ import annotations

import re
import secrets

FORM = r"[A-Za-z0-9._:/+=-]{1,128}"
_TEXT = re.compile(FORM)
_BYTES = re.compile(FORM.encode())
_GOLDEN = 0x9E3779B97F4A7C15
"""Odd, so adding it again and again visits every 64-bit number before it repeats one."""
_MASK = 2**64 - 1


class RequestIds:
    """Numbers that begin anywhere and do not repeat; they name requests and keep no secrets."""

    def __init__(self) -> None:
        self._last = secrets.randbits(64)

    def text(self, given: str) -> str:
        """Return the id of a request that came with ``given``, which may be empty."""
        if given and _TEXT.fullmatch(given):
            return given
        self._last = (self._last + _GOLDEN) & _MASK
        return f"{self._last:016x}"

    def encoded(self, given: bytes | None) -> bytes:
        """Return the same as bytes."""
        if given is not None and _BYTES.fullmatch(given):
            return given
        self._last = (self._last + _GOLDEN) & _MASK
        return b"%016x" % self._last


REQUEST_IDS = RequestIds()
"""Those of this process."""
