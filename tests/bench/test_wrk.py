from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench import wrk


def test_any_request_becomes_a_lua_string() -> None:
    """Every byte is written as its number, so nothing in it means anything to Lua."""
    assert wrk._quoted(b'a"\\\r\n\x00\xff') == '"\\097\\034\\092\\013\\010\\000\\255"'


@pytest.mark.skipif(wrk.missing() is not None, reason="wrk is not installed")
async def test_a_report_has_the_shape_of_the_other_generators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests, errors and latencies are what the server saw; refusals are errors."""
    monkeypatch.setattr(wrk, "WARM_UP_S", 1.0)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"text": "Ä?"}\n{"text": "b?"}\n', encoding="utf-8")
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            seen.append(head + await reader.readexactly(length))
            status = b"200 OK" if b"b?" in seen[-1] else b"429 Too Many Requests"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    async with server:
        generator = wrk.Wrk(
            questions, collection="c", zipf=0.0, key="k", threads=1, pin=lambda: None
        )
        port = server.sockets[0].getsockname()[1]
        report = await asyncio.to_thread(generator.run_warm, port, 2, 1.0)
    bodies = {request.partition(b"\r\n\r\n")[2] for request in seen}
    assert bodies == {
        b'{"query": "\\u00c4?", "collection": "c"}',
        b'{"query": "b?", "collection": "c"}',
    }
    assert all(b"\r\nAuthorization: Bearer k\r\n" in request for request in seen)
    assert 0 < report["errors"] < report["requests"] < report["answered"] <= len(seen)
    assert report.keys() >= {"requests_per_s", "error_share", "body_bytes", "seconds"}
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["max"]
