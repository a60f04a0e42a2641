"""More come at once than can be answered: the lane decides, once, who is let in."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from ragserve.flow import admission
from ragserve.flow.gate import FIRST
from ragserve.pipeline.gates import LOCAL_AT_ONCE
from tests.worker.test_lane import asking, express


async def raw_status(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: str
) -> bytes:
    """Ask over a connection in one segment; return the status."""
    body = b'{"query":"%b"}' % question.encode()
    head = b"POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return answer.split(b" ")[1]


async def test_a_crowd_is_let_in_or_refused_by_the_lane(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is let in is not refused later, which would cost much more: room is counted once."""
    monkeypatch.setattr(admission, "ENTERING_S", 60.0)
    async with asking(tmp_path, dsn) as (server, _), asyncio.timeout(60):
        entrance = server.services.pipeline.entrance
        first, burst_s = entrance.gates[0], server.services.config.admission.burst_s
        port = int(server.url.rpartition(":")[2])
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        for reader, writer in crowd:  # aiohttp waits for a request by then
            assert await raw_status(reader, writer, "lunch 0") == b"200"
        # As if twenty at a time were all that it can answer.
        first._calls, first._mean_s = FIRST, burst_s * LOCAL_AT_ONCE / 20
        before = express()
        asking_all = (raw_status(*one, f"dinner {n}") for n, one in enumerate(crowd))
        statuses = Counter(await asyncio.gather(*asking_all))
        assert set(statuses) == {b"200", b"503"}, statuses
        assert express() - before == statuses[b"503"]
        assert not any(entrance._entering.values()), "all have arrived"
        for _, writer in crowd:
            writer.close()
