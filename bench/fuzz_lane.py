"""Differential fuzzing of the express lane: ``python -m bench.fuzz_lane``.

Framing: requests mutated at random; whatever the lane's matcher accepts, aiohttp's parser and h11
must accept too, and find the same method, target and end. Streams: sequences of mutated requests in
random segments, sent to a server with the lane and to one without, must get the same answers.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from ragserve.edge.express import Plain, parse_plain
from tests.edge.vectors import ALL, MALFORMED, PLAIN, UNUSUAL
from tests.edge.wire import two_sides

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
BODY_BYTES = 64 * 1024
"""Longer bodies are compared by their length alone."""
_SEEDS = [data for data in (*PLAIN.values(), *ALL.values()) if len(data) < 2000]
_BEGINNING = re.compile(rb"(?=GET /|POST /)")
_LINES = [
    b"Transfer-Encoding: chunked",
    b"Content-Length: 5",
    b"content-length:5",
    b"Content-Length: 05",
    b"Host: b",
    b"Connection: close",
    b"Expect: 100-continue",
    b" folded",
    b"X-A:",
    b"",
]
_BYTES = [bytes([n]) for n in range(256)] + 8 * [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0"]


class Disagreement(Exception):
    """Two readers of the same bytes read different things."""


class Framing(NamedTuple):
    """How many inputs the lane read, and how many of them it accepted."""

    inputs: int
    accepted: int


def mutate(random: Random) -> bytes:
    """Return one of the vectors with a few changes."""
    data = random.choice(_SEEDS)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        data = _change(random, data)
    return data


def _change(random: Random, data: bytes) -> bytes:
    end = max(1, data.find(b"\r\n\r\n"))
    at = random.randrange(end)
    match random.randrange(6):
        case 0:
            return data[:at] + random.choice(_BYTES) + data[at:]
        case 1:
            return data[:at] + random.choice(_BYTES) + data[at + 1 :]
        case 2:
            return data[:at] + data[at + random.randrange(1, 4) :]
        case 3:
            lines = data[:end].split(b"\r\n")
            lines.insert(random.randrange(len(lines) + 1), random.choice(_LINES))
            return b"\r\n".join(lines) + data[end:]
        case 4:
            lines = data[:end].split(b"\r\n")
            lines.append(lines[random.randrange(len(lines))])
            return b"\r\n".join(lines) + data[end:]
        case _:
            return data[:at] + data[at : at + 8].swapcase() + data[at + 8 :]


def fuzz_framing(random: Random, count: int) -> Framing:
    """Compare the matcher with aiohttp's parser and h11 on ``count`` inputs."""
    loop = asyncio.new_event_loop()
    protocol = BaseProtocol(loop)
    accepted = 0
    try:
        for _ in range(count):
            data = mutate(random)
            head = data[: data.find(b"\r\n\r\n") + 4]
            plain = parse_plain(head)
            if plain is None:
                continue
            accepted += 1
            expected = (plain.method, plain.target, min(plain.length, BODY_BYTES))
            body = b"x" * expected[2]
            if plain.length <= BODY_BYTES:
                _check(data, plain, _by_aiohttp(protocol, loop, head + body + NEXT))
                _check(data, plain, _by_h11(head + body + NEXT))
    finally:
        loop.close()
    return Framing(count, accepted)


Reading = tuple[bytes, bytes, int, bytes]
"""Method, target, length of the body, and the target of the request that follows."""


def _check(data: bytes, plain: Plain, found: Reading | str) -> None:
    expected = (plain.method, plain.target, plain.length, b"/next")
    if found != expected:
        raise Disagreement(f"{data!r}: the lane reads {expected}, another {found}")


def _by_aiohttp(
    protocol: BaseProtocol, loop: asyncio.AbstractEventLoop, data: bytes
) -> Reading | str:
    parser = HttpRequestParser(
        protocol, loop, 2**16, max_line_size=8190, max_field_size=8190, max_headers=128
    )
    try:
        messages, upgraded, _ = parser.feed_data(data)
    except HttpProcessingError as error:
        return f"aiohttp: {error.message}"
    if upgraded or len(messages) != 2:
        return f"aiohttp: {len(messages)} messages"
    (first, payload), (second, _) = messages
    length = 0
    while not payload.at_eof():
        length += len(payload.read_nowait(-1))
    return first.method.encode(), first.path.encode(), length, second.path.encode()


def _by_h11(data: bytes) -> Reading | str:
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    try:
        request = server.next_event()
        length = 0
        while isinstance(event := server.next_event(), h11.Data):
            length += len(event.data)
    except h11.RemoteProtocolError as error:
        return f"h11: {error}"
    if not isinstance(request, h11.Request) or not isinstance(event, h11.EndOfMessage):
        return f"h11: {request}, {event}"
    rest = server.trailing_data[0].split(b" ")[1]
    return request.method, request.target, length, rest


async def fuzz_streams(random: Random, count: int) -> int:
    """Compare the answers to ``count`` streams; return how many answers there were."""
    answers = 0
    known = list((PLAIN | UNUSUAL).values())
    async with two_sides() as (lane, plain):
        for _ in range(count):
            parts = [
                random.choice(known) if random.random() < 0.6 else mutate(random)
                for _ in range(random.randrange(1, 6))
            ]
            if random.random() < 0.2:
                parts.append(random.choice(list(MALFORMED.values())))
            segments = list(_cut(random, parts))
            at_once = random.random() < 0.3
            expected = await plain.send(segments, at_once=at_once)
            found = await lane.send(segments, at_once=at_once)
            answers += len(found.answers)
            if found != expected:
                statuses = [
                    [answer.status for answer in side.answers] for side in (found, expected)
                ]
                raise Disagreement(f"{segments!r}, at once {at_once}: {statuses}")
    return answers


def _cut(random: Random, parts: list[bytes]) -> Iterator[bytes]:
    """Cut where requests end, where they seem to begin, at random, or nowhere."""
    match random.randrange(4):
        case 0:
            yield from parts
        case 1:
            yield b"".join(parts)
        case 2:
            segment = b""
            for piece in _BEGINNING.split(b"".join(parts)):
                segment += piece
                if segment and random.random() < 0.6:
                    yield segment
                    segment = b""
            yield segment or b"\r\n"
        case _:
            data = b"".join(parts)
            while data:
                size = random.randrange(1, 2 + min(len(data), 400))
                yield data[:size]
                data = data[size:]


def main() -> int:
    """Fuzz as long as the arguments say; print what was compared."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--framing", type=int, default=10_000_000, help="inputs of the matcher")
    parser.add_argument("--streams", type=int, default=100_000, help="streams to two servers")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="repeats a run")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    random = Random(options.seed)
    start = time.perf_counter()
    framing = fuzz_framing(random, options.framing)
    seconds = time.perf_counter() - start
    print(f"framing: {framing.inputs:,} inputs, {framing.accepted:,} accepted, {seconds:.0f} s")
    start = time.perf_counter()
    answers = asyncio.run(fuzz_streams(random, options.streams))
    seconds = time.perf_counter() - start
    print(f"streams: {options.streams:,} with {answers:,} answers, {seconds:.0f} s")
    print("no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
