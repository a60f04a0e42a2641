"""Server-sent events: the same data however the bytes arrive, and bounds on what is held."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.upstream.sse import EventParser, EventTooLarge

STREAMS = {
    "plain": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "without a space": (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
    "several lines": (b"data: a\ndata: b\ndata\n\n", [b"a\nb\n"]),
    "other fields": (b"event: x\nid: 7\ndata: a\nretry: 9\ndatum: no\n\n", [b"a"]),
    "comments": (b": ping\n\n:\n\ndata: a\n: ping\n\n", [b"a"]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n", [b"a", b"b\nc"]),
    "CR": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "mixed ends": (b"data: a\r\n\ndata: b\r\r\ndata: c\n\r", [b"a", b"b", b"c"]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "half a mark": (b"\xef\xbbdata: a\n\ndata: b\n\n", [b"b"]),
    "no end": (b"data: a\n\ndata: b\n", [b"a"]),
    "not UTF-8": (b"data: \xff\xfe\n\n", [b"\xff\xfe"]),
    "nothing": (b"\n\n\n", []),
}


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS.keys())
def test_pieces_do_not_matter(stream: bytes, events: list[bytes]) -> None:
    """A stream means the same at once, byte by byte, and cut in two anywhere."""
    assert EventParser().feed(stream) == events
    drip = EventParser()
    assert [event for byte in stream for event in drip.feed(bytes([byte]))] == events
    for cut in range(len(stream)):
        parser = EventParser()
        assert parser.feed(stream[:cut]) + parser.feed(stream[cut:]) == events


@given(
    st.lists(st.sampled_from([b"data: a", b"data:", b":c", b"x: y", b"", b"\xff"]), max_size=12),
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=12, max_size=12),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_any_split_of_anything(lines: list[bytes], ends: list[bytes], cuts: list[int]) -> None:
    """Whatever the lines, their ends and the pieces: the events are those of the whole."""
    stream = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parser = EventParser()
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    found = [event for piece in pieces for event in parser.feed(piece)]
    assert found == EventParser().feed(stream)


@pytest.mark.parametrize("endless", [b"x", b"data: x\n", b"data\n", b": x"])
def test_an_endless_event_is_refused(endless: bytes) -> None:
    """Neither a line nor an event's lines together grow past the bound."""
    parser = EventParser(max_bytes=1000)

    def feed_on() -> None:
        for _ in range(1001):
            parser.feed(endless)

    with pytest.raises(EventTooLarge, match="over 1000 bytes"):
        feed_on()


def test_long_lives_are_no_long_events() -> None:
    """The bound is of one event: a stream may be of any length."""
    parser = EventParser(max_bytes=100)
    assert sum(len(parser.feed(b"data: 0123456789\n\n")) for _ in range(1000)) == 1000
