"""Pipelines over real sockets: lane, aiohttp and streams on one connection, and who never reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from pathlib import Path

import h11
import pytest

from tests.worker.test_lane import asking, served

TIMEOUT_S = 60.0
MOST_HELD = 2**20
"""Bytes that one connection may make the server hold."""


def request(kind: str, number: int) -> bytes:
    """Return a request that its answer's X-Request-ID tells."""
    head = f"Host: a\r\nX-Request-ID: {kind}-{number}\r\n"
    if kind in ("ready", "health"):
        return f"GET /{kind} HTTP/1.1\r\n{head}\r\n".encode()
    question: dict[str, object] = {"query": "When is lunch served?"}
    if kind == "new":
        question["query"] = f"When is lunch {number} served?"
    if kind == "stream":
        question["stream"] = True
    body = json.dumps(question)
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST /v1/query HTTP/1.1\r\n{head}\r\n{body}".encode()


async def read_one(reader: asyncio.StreamReader, rest: bytes) -> tuple[str, int, bytes, bytes]:
    """Return an answer's id, status and body, and what was read beyond its end."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    if rest:  # nothing would mean the end
        client.receive_data(rest)
    answer_id, status, body = "", 0, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Response):
            status = event.status_code
            answer_id = dict(event.headers)[b"x-request-id"].decode()
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return answer_id, status, body, client.trailing_data[0]


@pytest.mark.parametrize("pipelines", [150, pytest.param(10_000, marks=pytest.mark.nightly)])
async def test_mixed_pipelines_are_answered_in_order(
    tmp_path: Path, dsn: str, pipelines: int
) -> None:
    """Known and new questions, pages and streams, in any segments: each answered, in order."""
    rng = random.Random(1)
    kinds = ["ready", "health", "known", "known", "new", "stream"]
    async with asking(tmp_path, dsn) as (server, _):
        port = int(server.url.rpartition(":")[2])

        async def pipeline(first: int) -> None:
            chosen = [rng.choice(kinds) for _ in range(rng.randint(1, 8))]
            data = b"".join(request(kind, first + n) for n, kind in enumerate(chosen))
            cuts = sorted(rng.sample(range(1, len(data)), rng.randint(0, 4)))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                writer.write(data[start:end])
                await writer.drain()
                await asyncio.sleep(0)
            rest = b""
            for n, kind in enumerate(chosen):
                async with asyncio.timeout(TIMEOUT_S):
                    answer_id, status, body, rest = await read_one(reader, rest)
                assert (answer_id, status) == (f"{kind}-{first + n}", 200)
                assert (b"event: end\n" in body) == (kind == "stream")
                if kind not in ("ready", "health"):
                    assert b"at noon" in body
            assert rest == b""
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        for first in range(0, 10 * pipelines, 100):
            async with asyncio.TaskGroup() as group:
                for number in range(10):
                    group.create_task(pipeline(first + 10 * number))


@pytest.mark.parametrize("segments", ["one by one", "all at once"])
async def test_who_never_reads_makes_the_server_hold_little(
    tmp_path: Path, dsn: str, segments: str
) -> None:
    """A pipelining client that takes no answer is soon not read any more; it holds under 1 MiB."""
    loop = asyncio.get_running_loop()
    async with served(tmp_path, dsn) as server:
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", port))
            one = request("health", 1)
            data = one if segments == "one by one" else 500 * one
            sent = 0
            # It blocks once the server reads no more and the kernel's buffers are full.
            with contextlib.suppress(TimeoutError):
                while sent < 200 * MOST_HELD:
                    async with asyncio.timeout(2):
                        await loop.sock_sendall(client, data)
                    sent += len(data)
            assert sent < 200 * MOST_HELD
            (connection,) = server.site._runner.server.connections  # type: ignore[union-attr]
            held = connection.transport.get_write_buffer_size()
            waiting = sum(len(str(message)) for message, _ in connection._messages)
            assert held + waiting + len(connection._message_tail) < MOST_HELD
