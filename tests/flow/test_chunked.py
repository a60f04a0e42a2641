"""Chunks taken out of their frames without a parser: what a parser would say, or nothing."""

from __future__ import annotations

import pytest

from ragserve.flow.chunked import LONGEST, framed, try_single


@pytest.mark.parametrize("size", [1, 9, 10, 15, 16, 17, 255, 256, 257, LONGEST - 8, LONGEST - 7])
def test_a_chunk_by_itself_is_unframed(size: int) -> None:
    """Whatever its length; what would be long enough to be rare is left to the parser."""
    content = b"x" * size
    whole = framed(content)
    assert whole == b"%x\r\n%b\r\n" % (size, content)
    assert try_single(whole) == (content if len(whole) < LONGEST else None)


def test_any_length_can_be_framed() -> None:
    """Beyond those that are prepared, too."""
    assert framed(b"x" * 70_000) == b"11170\r\n" + b"x" * 70_000 + b"\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"0\r\n\r\n",  # the last one
        b"5\r\nhello",
        b"5\r\nhello\r",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n5\r\nworld\r\n",
        b"05\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"5;x=y\r\nhello\r\n",
        b"A\r\n0123456789\r\n",  # a parser knows capitals
        b"6\r\nhello\r\n",
        b"5\r\nhello\n\n",
        b"hello",
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    """Parts, several, extensions, the end, and heads that are not as short as they can be."""
    assert try_single(data) is None
