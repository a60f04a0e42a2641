"""A language model that only keeps time: ``python -m bench.upstream --port 9000``.

It speaks OpenAI's chat completions and gives every request the same number of tokens at the same
pace, to thousands of streams at once for little CPU: one timer for all, no request is parsed
beyond its head. What a language model's server can do wrong it does on demand (``--fail``).

Its own ceiling is the row "no relay" of ``python -m bench.run streams-500``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import struct
from collections import deque
from typing import Literal, NamedTuple, cast

import uvloop

TICK_MS = 1
MARK = "~t"
"""In every token: readers count it, however a relay frames the words."""
FAILURES = ("hang", "stall", "reset", "429", "500", "garbage", "drip")
Failure = Literal["hang", "stall", "reset", "429", "500", "garbage", "drip"]
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
REFUSALS = {
    "429": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 4\r\n\r\nbusy",
    "500": b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n"
    b"Content-Length: 4\r\n\r\noops",
}


class Pace(NamedTuple):
    """Tokens of an answer, and milliseconds before the first one and between two."""

    tokens: int
    first_ms: int
    interval_ms: int


def framed(json: str) -> bytes:
    """Return an event as an HTTP chunk."""
    event = f"data: {json}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def chunk(choices: str, extra: str = "") -> bytes:
    """Return a chunk of a completion."""
    return framed(
        '{"id":"chatcmpl-paced","object":"chat.completion.chunk","created":1750000000,'
        f'"model":"paced","choices":[{choices}]{extra}}}'
    )


class Script:
    """The frames of one answer, made once."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        texts = (f" {MARK}{number % 1000:03d}" for number in range(pace.tokens))
        self.frames = [
            chunk(f'{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}')
            for text in texts
        ]
        usage = (
            f'{{"prompt_tokens":500,"completion_tokens":{pace.tokens},'
            f'"total_tokens":{500 + pace.tokens}}}'
        )
        self.end = (
            chunk('{"index":0,"delta":{},"finish_reason":"stop"}')
            + chunk("", f',"usage":{usage}')
            + framed("[DONE]")
            + b"0\r\n\r\n"
        )


class Stream:
    """One answer on its way; ``at`` is its next token's number."""

    __slots__ = ("at", "client")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.at = 0


class Wheel:
    """All streams, by the millisecond of their next token: one timer, whatever their number."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._loop = asyncio.get_running_loop()
        longest = max(script.pace.first_ms, script.pace.interval_ms)
        self._slots: deque[list[Stream]] = deque([] for _ in range(longest // TICK_MS + 2))
        self._due = self._loop.time()
        self._loop.call_at(self._due, self._tick)

    def begin(self, client: Client) -> None:
        """Let a stream begin."""
        late_ms = (self._loop.time() - self._due) * 1000
        self._put(Stream(client), self._script.pace.first_ms + max(0, round(late_ms)))

    def _put(self, stream: Stream, delay_ms: int) -> None:
        self._slots[min(delay_ms // TICK_MS, len(self._slots) - 1)].append(stream)

    def _tick(self) -> None:
        # Whatever is due by now: a late tick makes up for those it missed.
        now = self._loop.time()
        while self._due <= now:
            due = self._slots[0]
            self._slots[0] = []
            self._slots.rotate(-1)
            self._due += TICK_MS / 1000
            for stream in due:
                self._advance(stream)
        self._loop.call_at(self._due, self._tick)

    def _advance(self, stream: Stream) -> None:
        client = stream.client
        if client.transport is None:
            return
        if stream.at == 0:
            client.transport.write(HEAD)
        if stream.at < len(self._script.frames):
            client.transport.write(self._script.frames[stream.at])
            stream.at += 1
            if client.fails(stream.at):
                return
            self._put(stream, self._script.pace.interval_ms - TICK_MS)
        else:
            client.transport.write(self._script.end)


class Client(asyncio.Protocol):
    """A connection; requests come one after another."""

    def __init__(self, wheel: Wheel, failure: Failure | None, after: int) -> None:
        self.transport: asyncio.Transport | None = None
        self._wheel = wheel
        self._failure = failure
        self._after = after
        self._heard = b""
        self._to_come = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Take as much as there is of a request."""
        if self._to_come:
            self._to_come -= len(data)
        else:
            self._heard += data
            head, ended, rest = self._heard.partition(b"\r\n\r\n")
            if not ended:
                return
            self._heard = b""
            self._to_come = _length(head) - len(rest)
        if self._to_come <= 0:
            self._to_come = 0
            self._answer()

    def fails(self, said: int) -> bool:
        """Do what goes wrong after ``said`` tokens; return whether that ends the stream."""
        if self._failure is None or said < self._after or self.transport is None:
            return False
        if self._failure == "reset":
            ours = self.transport.get_extra_info("socket")
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif self._failure == "garbage":
            self.transport.write(framed("{not JSON"))
        return self._failure in ("reset", "garbage", "stall")

    def _answer(self) -> None:
        if self.transport is None or self._failure == "hang":
            return
        if self._failure in REFUSALS:
            self.transport.write(REFUSALS[self._failure])
            self.transport.close()
        elif self._failure == "drip":
            self._drip(HEAD)
        else:
            self._wheel.begin(self)

    def _drip(self, data: bytes) -> None:
        """Send a byte a second."""
        if self.transport is not None and data:
            self.transport.write(data[:1])
            asyncio.get_running_loop().call_later(1.0, self._drip, data[1:])


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until the process is told to stop."""
    loop = asyncio.get_running_loop()
    wheel = Wheel(Script(Pace(arguments.tokens, arguments.first_ms, arguments.interval_ms)))
    requests = 0

    def connected() -> Client:
        nonlocal requests
        requests += 1
        fails = arguments.fail is not None and requests % arguments.every == 0
        return Client(wheel, arguments.fail if fails else None, arguments.after)

    server = await loop.create_server(connected, arguments.host, arguments.port, backlog=4096)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with server:
        await stopped.wait()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--tokens", type=int, default=200, help="of each answer")
    parser.add_argument("--first-ms", type=int, default=100, help="time to the first token")
    parser.add_argument("--interval-ms", type=int, default=20, help="time between two")
    parser.add_argument("--fail", choices=FAILURES, help="what goes wrong")
    parser.add_argument("--after", type=int, default=10, help="tokens before it goes wrong")
    parser.add_argument("--every", type=int, default=1, help="connections of which one fails")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
