"""A reply in any pieces: what is taken out of its chunk by hand and what the parser takes agree."""

from __future__ import annotations

import asyncio
import random

import pytest

from ragserve.flow.chunked import try_single
from ragserve.upstream.connection import Connection
from ragserve.upstream.exchange import Exchange
from ragserve.upstream.failure import CallFailed
from ragserve.upstream.through import Through
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


class Skimming:
    """Takes whole events out of their chunks: some of them, or all."""

    def __init__(self, heard: list[bytes], share: float) -> None:
        self.heard_at = 0.0
        self._heard = heard
        self._share = share
        self._rng = random.Random(1)

    def skim(self, chunk: bytes) -> bool:
        """Take an event that is by itself."""
        content = try_single(chunk) or b""
        alone = content.startswith(b"data: {") and content.endswith(b"\n\n")
        if not alone or b"\n\ndata: " in content or self._rng.random() > self._share:
            return False
        self._heard.append(content[6:-2])
        return True


async def _events(pieces: list[bytes], share: float = 0.0) -> tuple[list[bytes], bool]:
    """Return the events of a reply that arrives so, and whether the connection is of use again.

    So great a share of what can be is skimmed.
    """
    heard: list[bytes] = []
    free: list[Connection] = []
    exchange = Exchange(heard.extend, PATIENCE, skimmer=Skimming(heard, share) if share else None)
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


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("end", [b"0\r\n\r\n", b"0\r\nExpires: 0\r\n\r\n", b"000;x\r\n\r\n"])
async def test_pieces_do_not_matter(end: bytes, share: float) -> None:
    """The same events, and a connection that can be used again, whatever arrives together."""
    rng = random.Random(7)
    for _ in range(400):
        events = [b'{"n":%d,"t":"%b"}' % (n, b"\xc3\xa4" * rng.randrange(30)) for n in range(9)]
        whole = [HEAD, *(_framed(b"data: " + event + b"\n\n", rng) for event in events)]
        whole += [chunk(b"data: [DONE]\n\n"), end]
        pieces = _cut(b"".join(whole), whole, rng)
        assert await _events(pieces, share) == (events, True), pieces


class Whole:
    """Somebody that a stream is passed on to, and who counts it."""

    def __init__(self) -> None:
        self.taken = self.counted = b""
        self.begun = self.forwarded = 0

    def begin(self) -> None:
        """Take note that there will be something."""
        self.begun += 1

    def take(self, piece: bytes) -> None:
        """Take a piece."""
        self.taken += piece

    def forward(self, chunk: bytes) -> None:
        """Take a piece out of its chunk."""
        self.taken += try_single(chunk) or b""
        self.forwarded += 1

    def hear(self, piece: bytes) -> None:
        """Count a piece."""
        self.counted += piece


async def test_what_is_passed_on_is_what_came() -> None:
    """To the byte, whatever arrives together; most of it in the chunks in which it came."""
    rng = random.Random(8)
    forwarded = 0
    for _ in range(400):
        body = [b"data: %d %b\n\n" % (n, b"\xc3\xa4" * rng.randrange(30)) for n in range(9)]
        whole = [HEAD, *(_framed(event, rng) for event in body), b"0\r\n\r\n"]
        sink, free = Whole(), []
        through = Through(sink, sink, sink.begin)
        exchange = Exchange(through.hear, PATIENCE, skimmer=through, raw=True)
        connection = Connection(free.append, lambda _: None)
        connection.connection_made(Deaf())
        call = asyncio.create_task(connection.perform(b"", b"", exchange))
        await asyncio.sleep(0)
        for piece in _cut(b"".join(whole), whole, rng):
            connection.data_received(piece)
        await call
        assert sink.taken == sink.counted == b"".join(body)
        assert (sink.begun, len(free)) == (1, 1)
        forwarded += sink.forwarded
    assert forwarded > 400


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
