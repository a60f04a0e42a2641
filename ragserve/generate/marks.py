"""Citation marks in a model's words, resolved while the words are still coming.

A model is given passages numbered from 1 and puts ``[2]`` or ``[1, 3]`` behind what it says.
Lists are taken apart, ``[1][3]``; numbers it was not given are dropped with the space before them,
unless what stands around them could then be taken for a mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARK = re.compile(r"\s?\[(\d+(?:\s*,\s*\d+)*)\]")
_WITHIN = frozenset("0123456789, \t\n")

_OPEN = frozenset("[,0123456789")
"""Behind one of these, what follows a dropped mark could complete another."""

LONGEST_MARK = 64
"""Characters held back at most while a bracket may still become a mark."""


class Marks:
    """Text goes in in pieces of any size; what comes out does not depend on their sizes."""

    __slots__ = ("_begun", "_cited", "_held", "_last", "_passages", "ready")

    def __init__(self, passages: int) -> None:
        self.ready = False
        """Whether plain words can be said as they are, without ``feed``."""
        self._passages = passages
        self._cited: set[int] = set()
        self._held = ""
        self._begun = False
        self._last = ""

    @property
    def indexes(self) -> Sequence[int]:
        """Return what the text cites; without any mark, all passages: it was made from them."""
        return sorted(self._cited) or range(1, self._passages + 1)

    def feed(self, text: str, before: str = "") -> str:
        """Return what can be said now; the beginning of what may be a mark is held back.

        ``before`` is the last of what has been said without ``feed`` since it was called last.
        """
        self._last = before or self._last
        if self.ready and "[" not in text and not text[-1:].isspace():
            self._last = text[-1:] or self._last
            return text
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        cut = _held_from(text)
        self._held = text[cut:]
        self.ready = self._begun and not self._held
        said = _MARK.sub(self._resolve, text[:cut])
        self._last = text[cut - 1 : cut] or self._last
        return said

    def end(self) -> str:
        """Return what was held back, without white space at the end."""
        text, self._held = self._held.rstrip(), ""
        return text

    def _resolve(self, match: re.Match[str]) -> str:
        # ASCII digits, few of them: int() of a model's thousand digits would take its time.
        numbers = [int(number) for number in match[1].split(",") if len(number.strip()) < 6]
        known = [number for number in numbers if 1 <= number <= self._passages]
        self._cited.update(known)
        space = " " if match[0][0].isspace() else ""
        if known:
            return space + "".join(f"[{number}]" for number in known)
        before = match.string[match.start() - 1] if match.start() else self._last
        return " " if before in _OPEN else ""


def _held_from(text: str) -> int:
    """Return where the end of ``text`` begins that the next piece may change."""
    bracket = text.rfind("[", -LONGEST_MARK)
    if bracket < 0 or not _WITHIN.issuperset(text[bracket + 1 :]):
        bracket = len(text)
    return len(text[:bracket].rstrip())
