"""A running server that a command talks to instead of the database."""

from __future__ import annotations

import os
from typing import NamedTuple

import aiohttp

from ragserve.errors import Unavailable


class Remote(NamedTuple):
    """Its address, and a key to it if it wants one."""

    url: str
    key: str | None

    @property
    def base(self) -> str:
        """Return the address that paths are relative to."""
        return self.url.rstrip("/") + "/"

    @property
    def headers(self) -> dict[str, str]:
        """Return what each request carries."""
        return {} if self.key is None else {"Authorization": f"Bearer {self.key}"}


def unreachable(remote: Remote, error: Exception) -> Unavailable:
    """Return what to tell of a server that gave no answer."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return Unavailable(f"{remote.url}: {error or type(error).__name__}")
    cause = error.os_error
    said = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or cause
    return Unavailable(f"cannot connect to {remote.url}: {said}; does `ragserve serve` run there?")
