"""Bodies that come too slowly: refused by their deadline, by name, and counted."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ragserve.handlers import body
from tests.conftest import Api, configured, serving

PATIENT_S = 30.0
JSON = "Content-Type: application/json"
FORM = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'


@pytest.fixture
async def strict(tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    """A body may take 1.5 s; one whose length is announced 0.2 s and a second for 1,000 bytes."""
    monkeypatch.setattr(body, "GRACE_S", 0.2)
    config = configured(limits__body_timeout_s=1.5, limits__body_bytes_per_s=1000)
    async with serving(config, tmp_path, dsn, ingest=False) as api:
        yield api


def refused() -> float:
    labels = {"reason": "body"}
    return REGISTRY.get_sample_value("ragserve_clients_dropped_total", labels) or 0.0


async def drip(api: Api, path: str, head: str, begin: bytes, drop: bytes) -> tuple[float, str]:
    """Send ``begin``, then a drop every 50 ms; return when which error came."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n".encode() + begin)
    begun = loop.time()

    async def go_on() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0.05)

    dripping = asyncio.create_task(go_on())
    try:
        async with asyncio.timeout(PATIENT_S):
            said = await reader.readuntil(b"}}")
        seconds = loop.time() - begun
    finally:
        dripping.cancel()
        writer.close()
    status, _, text = said.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 504 ")
    error = json.loads(text)["error"]
    assert error["code"] == "deadline_exceeded"
    return seconds, error["message"]


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("path", "head", "begin", "drop", "allowed_s"),
    [
        # A byte every 50 ms is 20 bytes a second.
        ("/v1/query", f"{JSON}\r\nContent-Length: 600", b'{"query": "', b"x", 0.8),
        ("/v1/query", f"{JSON}\r\nContent-Length: 60000", b'{"query": "', b"x", 1.5),
        ("/v1/query", f"{JSON}\r\n{CHUNKED}", b"", b"1\r\n \r\n", 1.5),
        ("/v1/documents", f"{JSON}\r\nContent-Length: 600", b'{"text": "', b"x", 0.8),
        ("/v1/documents", f"{FORM}\r\nContent-Length: 600", PART, b"x", 0.8),
        ("/v1/documents", f"{FORM}\r\n{CHUNKED}", b"", b"1\r\n-\r\n", 1.5),
    ],
)
async def test_a_slow_body_is_given_up(
    strict: Api, path: str, head: str, begin: bytes, drop: bytes, allowed_s: float
) -> None:
    """Not before its time, which the error names, and not for as long as it keeps dripping."""
    before = refused()
    seconds, message = await drip(strict, path, head, begin, drop)
    assert allowed_s - 0.05 <= seconds
    assert f"not here within {allowed_s:.0f} s (limits.body_timeout_s = 1.5" in message
    assert refused() - before == 1


async def test_a_body_in_time_is_read(strict: Api) -> None:
    """Slow, but not too slow: it is answered."""
    before = refused()
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.client.port)
    text = b'{"query": "when is lunch"' + b" " * 500 + b"}"
    head = f"POST /v1/query HTTP/1.1\r\nHost: a\r\n{JSON}\r\nContent-Length: {len(text)}\r\n\r\n"
    writer.write(head.encode() + text[:-1])
    await asyncio.sleep(0.2)
    writer.write(text[-1:])
    async with asyncio.timeout(PATIENT_S):
        said = await reader.readuntil(b"}}")
    writer.close()
    assert said.startswith(b"HTTP/1.1 404 "), "there is no such collection"
    assert refused() == before
