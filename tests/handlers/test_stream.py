"""Answers told as they come about: sources, words, an end that says how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import Counter

from ragserve.flow.context import Context
from ragserve.flow.flight import Publish
from ragserve.metrics import STREAMS, STREAMS_CUT_OFF
from ragserve.pipeline import Event, Sources
from ragserve.pipeline.events import words
from ragserve.schema import Citation, QueryResponse, SearchRequest, Usage
from tests.conftest import Api, configured, serving
from tests.handlers.test_ask import OFFICE, TRAVEL

QUESTION = {"query": "when is lunch served", "stream": True}
CITATION = Citation(1, "office", "1", "Office guide", 0.9, "Lunch is at noon.")


async def frames(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Yield events as (name, data); comments as (":", text)."""
    name = "message"
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            yield ":", line[1:].strip()
        elif line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


class Scripted:
    """Takes the pipeline's place: answers one word at a time, when the test says so."""

    def __init__(self) -> None:
        self.hear: Publish[Event] = lambda _: None
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.outcome: asyncio.Future[QueryResponse] = asyncio.get_running_loop().create_future()

    async def query(
        self, request: SearchRequest, context: Context, hear: Publish[Event], **_: object
    ) -> QueryResponse:
        self.hear = hear
        self.asked.set()
        try:
            return await self.outcome
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def finish(self) -> None:
        self.outcome.set_result(
            QueryResponse("ans-1", "At noon.", [CITATION], "m", Usage(1, 2, 3), "miss")
        )


@pytest.fixture
async def script(api: Api) -> Scripted:
    """The script that the server now answers by."""
    scripted = Scripted()
    api.services.pipeline.query = scripted.query
    return scripted


async def test_a_stream_says_what_an_answer_says(api: Api) -> None:
    """Sources come first; the pieces together are the answer; the end has the rest."""
    await api.ingest(OFFICE, TRAVEL)
    alone = {"Cache-Control": "no-store"}
    async with api.client.post(
        "/v1/query", json={**QUESTION, "stream": False}, headers=alone
    ) as response:
        whole = await response.json()
    async with api.client.post("/v1/query", json=QUESTION) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert "X-Request-ID" in response.headers
        events = [event async for event in frames(response)]
    assert [name for name, _ in events] == ["sources", "delta", "end"]
    (_, sources), (_, words), (_, end) = events
    assert words["text"] == whole["answer"]
    cited = [citation["index"] for citation in whole["citations"]]
    assert end["cited"] == cited
    by_index = {citation["index"]: citation for citation in sources["citations"]}
    assert [by_index[index] for index in cited] == whole["citations"]
    assert (end["model"], end["usage"]) == (whole["model"], whole["usage"])


async def test_a_failure_before_the_first_event_is_a_response(api: Api) -> None:
    """What is wrong with the request is said with its status, not in a stream."""
    status, answer = await api.post("/v1/query", {**QUESTION, "collection": "nowhere"})
    assert (status, answer["error"]["code"]) == (404, "not_found")


@asynccontextmanager
async def streaming(api: Api, script: Scripted) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream whose first event, its sources, is under way."""
    asking = asyncio.create_task(api.client.post("/v1/query", json=QUESTION))
    await script.asked.wait()
    script.hear(Sources([CITATION]))
    async with await asking as response:
        yield response


async def test_words_arrive_as_they_are_said(api: Api, script: Scripted) -> None:
    """Nothing is held back until the end."""
    async with asyncio.timeout(30), streaming(api, script) as response:
        said = frames(response)
        assert (await anext(said))[0] == "sources"
        for word in ("At", ' "noon"\n', " – mittags."):
            script.hear(words(word))
            assert await anext(said) == ("delta", {"text": word})
        script.finish()
        assert await anext(said) == (
            "end",
            {
                "id": "ans-1",
                "cited": [1],
                "model": "m",
                "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
                "cache": "miss",
            },
        )
        assert [event async for event in said] == []


async def test_a_failure_in_the_midst_is_the_last_event(api: Api, script: Scripted) -> None:
    """An error after the first event is told in the stream, which then ends."""
    async with asyncio.timeout(30), streaming(api, script) as response:
        script.outcome.set_exception(RuntimeError("secret detail"))
        events = [event async for event in frames(response)]
    assert [name for name, _ in events] == ["sources", "error"]
    assert events[1][1]["error"]["code"] == "internal"
    assert "secret" not in str(events)


async def test_a_client_that_leaves_stops_the_work(api: Api, script: Scripted) -> None:
    """When the reader is gone, what it asked for is cancelled."""
    before = counted(STREAMS, "left")
    async with asyncio.timeout(30), streaming(api, script) as response:
        response.close()
        await script.cancelled.wait()
        await api.services.in_flight.wait_none(30)
    assert counted(STREAMS, "left") == before + 1


async def test_a_stopping_server_ends_its_streams(api: Api, script: Scripted) -> None:
    """A stream that outlasts the drain ends with an error event, not with silence."""
    async with asyncio.timeout(30), streaming(api, script) as response:
        said = frames(response)
        await anext(said)
        assert len(api.services.streams) == 1
        api.services.streams.end()
        (last,) = [event async for event in said]
    assert last[0] == "error"
    assert (last[1]["error"]["code"], len(api.services.streams)) == ("unavailable", 0)


async def test_a_silent_stream_is_kept_alive(tmp_path: Path, dsn: str) -> None:
    """While nothing is said, comments say that the answer is still to come."""
    config = configured(stream__keepalive_s=0.05)
    async with asyncio.timeout(30), serving(config, tmp_path, dsn, ingest=False) as api:
        script = Scripted()
        api.services.pipeline.query = script.query
        async with streaming(api, script) as response:
            said = frames(response)
            assert (await anext(said))[0] == "sources"
            assert await anext(said) == (":", "keep-alive")
            assert await anext(said) == (":", "keep-alive")
            script.finish()
            assert [name async for name, _ in said if name != ":"] == ["end"]


async def test_a_reader_that_does_not_read_is_cut_off(api: Api, script: Scripted) -> None:
    """A backlog over stream.buffer_bytes ends the stream; others are not kept waiting."""
    before = counted(STREAMS_CUT_OFF, "buffer")
    url = api.client.make_url("/v1/query")
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    body = json.dumps(QUESTION).encode()
    writer.write(
        b"POST /v1/query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with asyncio.timeout(30):
        await script.asked.wait()
        script.hear(Sources([CITATION]))
        await reader.readuntil(b"sources")
        piece = words("x" * 100_000)
        while not script.cancelled.is_set():
            script.hear(piece)
            await asyncio.sleep(0)
    assert counted(STREAMS_CUT_OFF, "buffer") == before + 1
    writer.close()


async def test_an_old_client_gets_the_stream_unframed(api: Api, script: Scripted) -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the stream."""
    url = api.client.make_url("/v1/query")
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = json.dumps(QUESTION).encode()
    writer.write(
        b"POST /v1/query HTTP/1.0\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with asyncio.timeout(30):
        await script.asked.wait()
        script.hear(Sources([]))
        script.finish()
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert rest.startswith(b'event: sources\ndata: {"citations":[]}\n\nevent: end\ndata: {')
    writer.close()


def counted(counter: Counter, *labels: str) -> float:
    """Return a counter's value."""
    return counter.labels(*labels)._value.get()
