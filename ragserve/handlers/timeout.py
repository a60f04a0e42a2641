"""How long a client is willing to wait."""

from __future__ import annotations

import re

from aiohttp import web

from ragserve.errors import InvalidRequest

HEADER = "X-Request-Timeout"
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


def wanted_timeout_s(request: web.Request) -> float | None:
    """Return the seconds of ``X-Request-Timeout``, if it is there."""
    value = request.headers.get(HEADER)
    if value is None:
        return None
    if not _SECONDS.fullmatch(value) or float(value) <= 0:
        raise InvalidRequest(
            f"{HEADER}: {value[:40]!r} is no number of seconds above 0", param=HEADER
        )
    return float(value)
