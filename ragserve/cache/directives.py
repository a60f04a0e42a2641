"""What ``Cache-Control`` asks of the cache, and what ``Cache-Status`` tells of it. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = "ragserve"
"""This cache in Cache-Status (RFC 9211, 2)."""
HIT = f"{NAME}; hit; detail=memory"

_DIRECTIVE = re.compile(r'\s*([a-z-]+)\s*(?:=\s*"?([^",;\s]*)"?)?\s*')


class Wishes(NamedTuple):
    """Whether an answer may come from the cache, at which age, and whether it may be kept."""

    read: bool = True
    store: bool = True
    only_cached: bool = False
    max_age_s: int | None = None

    def accepts(self, age_s: float) -> bool:
        """Return whether an answer of that age will do."""
        return self.max_age_s is None or age_s <= self.max_age_s

    def anew(self) -> Wishes:
        """Return the wishes of one whom nothing kept will do."""
        return self._replace(read=False)


ANY = Wishes()


def parse_wishes(cache_control: str | None, pragma: str | None = None) -> Wishes:
    """Return what the directives of RFC 9111, 5.2.1 ask for; unknown ones mean nothing.

    ``no-store`` also means that nothing kept is given: who wants no trace hardly wants another's
    answer. ``Pragma: no-cache`` counts where there is no ``Cache-Control`` (RFC 9111, 5.4).
    """
    if cache_control is None:
        return Wishes(read=False) if pragma and "no-cache" in pragma.lower() else ANY
    found = {}
    for part in cache_control.lower().split(","):
        match = _DIRECTIVE.fullmatch(part)
        if match:
            found[match[1]] = match[2] or ""
    store = "no-store" not in found
    read = store and "no-cache" not in found
    max_age_s = None
    if "max-age" in found:
        # What is no number is taken for the strictest (RFC 9111, 4.2.1).
        value = found["max-age"]
        max_age_s = min(int(value), 2**31) if re.fullmatch(r"[0-9]{1,20}", value) else 0
    return Wishes(read, store, "only-if-cached" in found, max_age_s)


def hit(tier: str, left_s: float) -> str:
    """Return the status of an answer from ``tier`` that stays fresh for ``left_s``, or was."""
    if left_s >= 0:
        return f"{NAME}; hit; detail={tier}"
    return f"{NAME}; hit; ttl={int(left_s) - 1}; detail={tier}"


def forwarded(wishes: Wishes) -> str:
    """Return the status of an answer that was computed."""
    if not wishes.store:
        return f"{NAME}; fwd=bypass"
    return f"{NAME}; fwd={'miss' if wishes.read else 'request'}"
