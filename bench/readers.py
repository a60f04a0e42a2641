"""Many readers of streamed answers: ``python -m bench.readers --url http://127.0.0.1:8080``.

Each asks for a chat completion of its own and counts the tokens of ``bench.upstream`` as they come.
A window opens when the last reader has its first token; on standard output a line says so, and
another one when it closes: whoever measures the server's CPU reads it at these two moments. The
last line is the report.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from statistics import median
from typing import cast
from urllib.parse import urlsplit

import uvloop
from hdrh.histogram import HdrHistogram

from bench.generator import LONGEST_US, percentiles
from bench.questions import QUESTIONS, read_questions
from bench.upstream import MARK

TOKEN = MARK.encode()
DONE = b"data: [DONE]"
SAMPLED = 10
"""Of so many streams the gaps between tokens are looked at in one."""


class Reader(asyncio.Protocol):
    """One stream; times are monotonic. ``failure`` says how it broke."""

    def __init__(self, request: bytes, ended: Callable[[], None], gaps: HdrHistogram | None):
        self.tokens = 0
        self.asked_at = 0.0
        self.first_at = 0.0
        self.ended_at = 0.0
        self.failure = "cut short"
        self._request = request
        self._ended = ended
        self._gaps = gaps
        self._last = 0.0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self.asked_at = time.monotonic()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Count what has arrived."""
        if not self.tokens and not data.startswith(b"HTTP/1.1 200") and not self._tail:
            self.failure = data.partition(b"\r\n")[0].decode(errors="replace")
            self._transport.close()  # a refused reader would count as a reading one until it ends
            return
        whole = self._tail + data
        found = whole.count(TOKEN) - self._tail.count(TOKEN)
        self._tail = data[-32:]
        if found:
            now = time.monotonic()
            if not self.tokens:
                self.first_at = now
            elif self._gaps is not None:
                self._gaps.record_value(max(1, int((now - self._last) * 1e6)))
            self._last = now
            self.tokens += found
        if DONE in whole:
            self.failure = ""
            self._transport.close()

    def give_up(self, failure: str) -> None:
        """Read no more of what does not end."""
        self.failure = failure
        self.ended_at = time.monotonic()
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self.ended_at:
            return  # given up
        if self.failure and exc is not None:
            self.failure = repr(exc)
        self.ended_at = time.monotonic()
        self._ended()


def requests(arguments: argparse.Namespace) -> list[bytes]:
    """Return a request for each stream, all different unless they are to ask the same."""
    url = urlsplit(arguments.url)
    questions = read_questions(QUESTIONS)
    made = []
    for number in range(arguments.streams):
        question = questions[0] if arguments.same else questions[number % len(questions)]
        text = question if arguments.same else f"{question} ({arguments.seed}-{number})"
        body = json.dumps(
            {
                "model": arguments.model,
                "stream": True,
                "stream_options": {"include_usage": True},
                "messages": [{"role": "user", "content": text}],
            }
        ).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Authorization: Bearer {arguments.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Read all streams to their end and return the report."""
    loop = asyncio.get_running_loop()
    url = urlsplit(arguments.url)
    gaps = HdrHistogram(1, LONGEST_US, 3)
    readers: list[Reader] = []
    over = asyncio.Event()
    ended = 0

    def count() -> None:
        nonlocal ended
        ended += 1
        if ended == arguments.streams:
            over.set()

    begin = loop.time()
    for number, request in enumerate(requests(arguments)):
        await asyncio.sleep(begin + number * arguments.ramp_s / arguments.streams - loop.time())
        reader = Reader(request, count, None if number % SAMPLED else gaps)
        await loop.create_connection(lambda made=reader: made, url.hostname, url.port)  # type: ignore[misc]
        readers.append(reader)
    until = loop.time() + arguments.timeout_s
    while loop.time() < until and not all(  # noqa: ASYNC110 - looked at seldom, told by thousands
        reader.first_at or reader.ended_at for reader in readers
    ):
        await asyncio.sleep(0.05)
    print("open", flush=True)
    gaps.reset()
    before, opened = sum(reader.tokens for reader in readers), loop.time()
    await asyncio.sleep(arguments.window_s)
    tokens, seconds = sum(reader.tokens for reader in readers) - before, loop.time() - opened
    steady = not any(reader.ended_at for reader in readers)
    between = percentiles(gaps)
    print("close", flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), arguments.timeout_s)
    for reader in readers:
        if not reader.ended_at:
            reader.give_up(f"not over {arguments.timeout_s:g} s after the window")
    return {
        "streams": len(readers),
        "steady": steady,
        "window_tokens": tokens,
        "window_s": round(seconds, 3),
        "between_ms": between,
        **_told(readers, arguments.tokens),
    }


def _told(readers: list[Reader], tokens: int) -> dict[str, object]:
    failures = Counter(
        reader.failure or f"{reader.tokens} of {tokens} tokens"
        for reader in readers
        if reader.failure or reader.tokens != tokens
    )
    first = HdrHistogram(1, LONGEST_US, 3)
    whole = []
    for reader in readers:
        if reader.first_at:
            first.record_value(max(1, int((reader.first_at - reader.asked_at) * 1e6)))
            whole.append(reader.ended_at - reader.first_at)
    return {
        "broken": sum(failures.values()),
        "failures": dict(failures.most_common(5)),
        "first_ms": percentiles(first),
        "slowest_to_median": round(max(whole) / median(whole), 3) if whole else None,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="rag")
    parser.add_argument("--key", default="none")
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--same", action="store_true", help="all ask the same")
    parser.add_argument("--seed", type=int, default=1, help="another one makes other questions")
    parser.add_argument("--tokens", type=int, default=200, help="that each shall get")
    parser.add_argument("--ramp-s", type=float, default=2.0, help="time in which they begin")
    parser.add_argument("--window-s", type=float, default=4.0)
    parser.add_argument("--timeout-s", type=float, default=120.0)
    print(json.dumps(uvloop.run(run(parser.parse_args()))))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
