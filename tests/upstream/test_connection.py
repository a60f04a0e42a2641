"""A reply in any pieces: what is taken out of its chunk by hand and what the parser takes agree."""

from __future__ import annotations

import asyncio
import random

import pytest

from ragserve.upstream.connection import Connection
from ragserve.upstream.exchange import Exchange
from ragserve.upstream.failure import CallFailed
from tests.upstream.wire import HEAD, PATIENCE, chunk


class Deaf(asyncio.Transport):
    """A transport to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data: object) -> None:
        """Lose it."""

    def abort(self) -> None:
        """Take note."""
        self.aborted = True

    def is_closing(self) -> bool:
        """Return whether it was aborted."""
        return self.aborted


async def _events(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the events of a reply that arrives so, and whether the connection is of use again."""
    heard: list[bytes] = []
    free: list[Connection] = []
    exchange = Exchange(heard.extend, PATIENCE)
    connection = Connection(free.append, lambda _: None)
    connection.connection_made(Deaf())
    call = asyncio.create_task(connection.perform(b"", b"", exchange))
    await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    await call
    return heard, bool(free)


def _framed(event: bytes, rng: random.Random) -> bytes:
    """Return an event as a chunk, in one of the ways in which a chunk may be written."""
    way = rng.randrange(6)
    if way < 3:
        return chunk(event)
    if way == 3:
        return b"%X\r\n%b\r\n" % (len(event), event)
    if way == 4:
        return b"00%x;name=value\r\n%b\r\n" % (len(event), event)
    half = rng.randrange(1, len(event))
    return chunk(event[:half]) + chunk(event[half:])


def _cut(stream: bytes, whole: list[bytes], rng: random.Random) -> list[bytes]:
    """Return the stream in pieces: mostly as it was sent, at times cut anywhere or joined."""
    if rng.random() < 0.5:
        cuts = sorted(rng.sample(range(1, len(stream)), min(len(stream) - 1, rng.randrange(12))))
        return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    pieces: list[bytes] = []
    for part in whole:
        if rng.random() < 0.2 and pieces:
            pieces[-1] += part
        elif rng.random() < 0.2:
            half = rng.randrange(1, len(part))
            pieces += [part[:half], part[half:]]
        else:
            pieces.append(part)
    return pieces


@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nExpires: 0\r\n\r\n", b"000;x\r\n\r\n"])
async def test_pieces_do_not_matter(end: bytes) -> None:
    """The same events, and a connection that can be used again, whatever arrives together."""
    rng = random.Random(7)
    for _ in range(400):
        events = [b'{"n":%d,"t":"%b"}' % (n, b"\xc3\xa4" * rng.randrange(30)) for n in range(9)]
        whole = [HEAD, *(_framed(b"data: " + event + b"\n\n", rng) for event in events)]
        whole += [chunk(b"data: [DONE]\n\n"), end]
        pieces = _cut(b"".join(whole), whole, rng)
        assert await _events(pieces) == (events, True), pieces


async def test_what_follows_the_end_is_no_chunk() -> None:
    """Something that looks like one spoils the connection and is not heard."""
    surplus = chunk(b"data: more\n\n")
    end = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    assert await _events([HEAD, chunk(b"data: a\n\n"), end, surplus]) == ([b"a"], False)


async def test_a_chunk_of_a_length_it_has_not_is_refused() -> None:
    """A line end where none belongs ends the call, as the parser says."""
    with pytest.raises(CallFailed, match="no HTTP reply"):
        await _events([HEAD, chunk(b"data: a\n\n"), b"5\r\ndata: b\n\n\r\n"])


async def test_a_body_of_known_length_has_no_chunks() -> None:
    """Content that looks like a chunk is content."""
    event = b"data: " + chunk(b"x" * 5).replace(b"\r\n", b"|") + b"\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
    inner = chunk(b"data: inner\n\n")
    body = event + inner + b"\n\ndata: [DONE]\n\n"
    heard, free = await _events([head % len(body), event, inner, b"\n\ndata: [DONE]\n\n"])
    assert (heard, free) == ([b"5|xxxxx|", b"inner"], True)
