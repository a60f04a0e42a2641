"""A running server that a command talks to instead of the database."""

from __future__ import annotations

from typing import NamedTuple


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
