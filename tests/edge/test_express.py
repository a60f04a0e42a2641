from __future__ import annotations

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragserve.edge.express import HEAD_BYTES, Memo, parse_plain
from tests.edge.vectors import BEGINS_PLAIN, MALFORMED, PLAIN, SMUGGLED, UNUSUAL, get, post

PIECES = [
    b"GET ", b"POST ", b"/ready", b"/v1/query", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n",
    b"\n", b"\r", b"Host: a", b"Host:", b"Content-Length: 2", b"Content-Length: 0", b"X: y", b":",
    b" ", b"\t", b"\0", b"Transfer-Encoding: chunked", b"Connection: close", b"{}", b"\x80", b"#",
    b"Content-Type: application/json", b",", b"5", b"Expect: 100-continue",
]  # fmt: skip


def head_of(data: bytes) -> bytes:
    return data[: data.find(b"\r\n\r\n") + 4]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_request_is_recognised(name: str) -> None:
    """Its size and length are those of the whole request."""
    plain = parse_plain(head_of(PLAIN[name]))
    assert plain is not None
    assert plain.size + plain.length == len(PLAIN[name])


@pytest.mark.parametrize("name", sorted(MALFORMED.keys() | UNUSUAL.keys()))
def test_what_is_not_certainly_plain_is_not_recognised(name: str) -> None:
    """Whatever a parser could find fault with, or read in another way, is left to aiohttp."""
    data = (MALFORMED | UNUSUAL)[name]
    assert (parse_plain(head_of(data)) is not None) == (name in BEGINS_PLAIN)


def test_headers_that_matter_are_reported() -> None:
    """Absent is None, empty is empty, surrounding spaces are gone, names have any case."""
    plain = parse_plain(get(b"AUTHORIZATION:  Bearer x ", b"Cache-Control:", b"x-request-id: 7"))
    assert plain is not None
    assert (plain.method, plain.target, plain.length) == (b"GET", b"/ready", 0)
    assert (plain.authorization, plain.cache_control, plain.origin) == (b"Bearer x", b"", None)
    assert (plain.request_id, plain.repeats) == (b"7", False)


def test_a_head_has_a_largest_size() -> None:
    """HEAD_BYTES pass, one more does not."""
    padding = HEAD_BYTES - len(get(b"X: "))
    assert parse_plain(get(b"X: " + b"a" * padding)) is not None
    assert parse_plain(get(b"X: " + b"a" * (padding + 1))) is None


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=14).map(b"".join))
@example(get())
@example(post(b"{}"))
@example(get(b"Content-Length: 2") + b"{}" + SMUGGLED)
def test_h11_reads_every_accepted_request_alike(data: bytes) -> None:
    """Whoever parses a request that was accepted finds its end at the same byte."""
    plain = parse_plain(head_of(data))
    if plain is None:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(data[: plain.size] + b"x" * plain.length + b"REST")
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (plain.method, plain.target)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == b"x" * plain.length
    assert server.trailing_data[0] == b"REST"


@given(st.integers(0, len(post())), st.binary(min_size=1, max_size=2))
def test_garbage_in_a_head_is_noticed_or_harmless(position: int, garbage: bytes) -> None:
    """Bytes inserted anywhere never change where the accepted request ends, by h11's reading."""
    data = post()
    test_h11_reads_every_accepted_request_alike.hypothesis.inner_test(  # type: ignore[attr-defined]
        data[:position] + garbage + data[position:]
    )


def test_a_memo_forgets_what_nobody_sends_any_more() -> None:
    """Its size has a bound; what is asked for again and again stays."""
    memo: Memo[int] = Memo(capacity_bytes=20 * 700)
    for n in range(1000):
        memo.remember(b"%0100d" % n, n)
        assert memo.find(b"%0100d" % 0) == 0
        assert len(memo) <= 20
    assert memo.find(b"%0100d" % 999) == 999
    assert memo.find(b"%0100d" % 500) is None
    assert repr(memo) == f"<Memo {len(memo)} heads, at most 14000 bytes>"
