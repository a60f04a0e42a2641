"""Tokens are estimated, and what recurs is estimated once."""

from __future__ import annotations

import pytest

from ragserve.embed import tokens
from ragserve.embed.tokens import RECURRING_CHARACTERS, count_recurring, count_tokens


@pytest.mark.parametrize("text", ["", "When is lunch?", "word " * RECURRING_CHARACTERS])
def test_counted_once_is_counted_right(text: str) -> None:
    """Remembered or not, short or long, a text has the same number of tokens every time."""
    assert [count_recurring(text) for _ in range(2)] == [count_tokens(text)] * 2


def test_only_short_texts_are_remembered() -> None:
    """What a client may send at any length does not stay in memory."""
    short, long = "x" * RECURRING_CHARACTERS, "x" * (RECURRING_CHARACTERS + 1)
    before = tokens._remembered.cache_info().currsize
    count_recurring(long)
    assert tokens._remembered.cache_info().currsize == before
    count_recurring(short)
    assert tokens._remembered.cache_info().currsize == before + 1
