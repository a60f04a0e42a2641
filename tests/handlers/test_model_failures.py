"""Everything a language model can do wrong: a clear end, nothing kept, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import Api, configured, serving
from tests.generate.test_dictation import piece
from tests.handlers.quiet import Quiet
from tests.handlers.test_ask import OFFICE
from tests.handlers.test_stream import frames
from tests.upstream.wire import HEAD, Client, Script, Wire, chunk, hang, replies, said, then, wire

QUESTION = {"query": "when is lunch served"}
SILENCE_S = 0.15
BEGUN = HEAD + said(piece("At 100"))
GARBAGE = said("{nonsense")
NO_UTF8 = chunk(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n')
GIANT = chunk(b"data: " + b"x" * 2**20 + b"\n")
ERROR = said('{"error": {"message": "overloaded"}}')


def drips(begin: bytes) -> Script:
    """Return a script that sends an event so slowly that it never ends."""

    async def script(client: Client) -> None:
        await client.request()
        await client.send(begin + b"f000\r\n")
        while True:
            await client.send(b"d")
            await asyncio.sleep(SILENCE_S / 5)

    return script


def status(line: bytes) -> Script:
    """Return a script that answers each request with this status."""
    return replies(*[b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\noops" % line] * 4)


BEFORE: dict[str, Script] = {
    "hangs": hang,
    "hangs after the head": then(HEAD),
    "says nothing but comments": then(HEAD + chunk(b": ping\n\n")),
    "drips": drips(HEAD),
    "closes": then(b"", close=True),
    "resets": then(HEAD, reset=True),
    "is throttled": status(b"429 No"),
    "is broken": status(b"500 No"),
    "refuses": status(b"400 No"),
    "speaks no HTTP": then(b"SSH-2.0-OpenSSH\r\n"),
    "sends garbage": then(HEAD + GARBAGE),
    "sends no UTF-8": then(HEAD + NO_UTF8),
    "sends a giant event": then(HEAD + GIANT),
    "sends an error": then(HEAD + ERROR),
}
IN_THE_MIDST: dict[str, tuple[bytes | None, str]] = {
    "hangs": (b"", "silent for 0.15 s"),
    "drips": (b"f000\r\n", "silent for 0.15 s"),
    "closes or resets": (None, "connection closed"),
    "sends garbage": (GARBAGE, "unusable event"),
    "sends no UTF-8": (NO_UTF8, "unusable event"),
    "sends a giant event": (GIANT, "an event over"),
    "sends an error": (ERROR, "overloaded"),
    "breaks its chunks": (b"zz\r\n", "no HTTP reply"),
}


SILENT = {"hangs", "hangs after the head", "says nothing but comments", "drips"}
"""Of these ways: only what fails by its time has a short one, whatever else the machine does."""


@asynccontextmanager
async def _served(
    script: Script, tmp_path: Path, dsn: str, **settings: object
) -> AsyncIterator[tuple[Api, Wire]]:
    async with wire(script) as state, _serving(state.port, tmp_path, dsn, **settings) as api:
        yield api, state


@asynccontextmanager
async def _serving(port: int, tmp_path: Path, dsn: str, **settings: object) -> AsyncIterator[Api]:
    config = configured(llm__base_url=f"http://127.0.0.1:{port}/v1", llm__attempts=1, **settings)
    async with asyncio.timeout(60), serving(config, tmp_path, dsn) as api:
        await api.ingest(OFFICE)
        yield api


async def _extracted(api: Api) -> None:
    """Ask, whole and streamed; both answers are extracted, say so, and are not kept."""
    quiet = Quiet(api)
    async with api.client.post("/v1/query", json=QUESTION) as response:
        answer = await response.json()
        assert (response.status, answer["degraded"]) == (200, ["llm"])
        assert "half past twelve" in answer["answer"]
        assert response.headers["Cache-Status"] == "ragserve; fwd=miss"
    async with api.client.post("/v1/query", json={**QUESTION, "stream": True}) as response:
        assert response.headers["Cache-Status"] == "ragserve; fwd=miss"
        events = [event async for event in frames(response)]
    # Sources may be told twice: those of the prompt, and those of the extracted answer.
    assert [name for name, _ in events][-2:] == ["delta", "end"]
    assert (events[-1][1]["degraded"], events[-1][1]["model"]) == (["llm"], "extractive")
    await quiet.again()


@pytest.mark.parametrize("way", BEFORE)
async def test_a_model_that_fails_before_its_first_word(way: str, tmp_path: Path, dsn: str) -> None:
    """The answer is extracted instead."""
    first_s = SILENCE_S if way in SILENT else 30.0
    async with _served(BEFORE[way], tmp_path, dsn, llm__first_token_timeout_s=first_s) as (
        api,
        state,
    ):
        await _extracted(api)
        assert state.connections >= 1


async def test_a_model_that_is_not_there(tmp_path: Path, dsn: str) -> None:
    """A connection that is refused ends as any other failure."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with _serving(unused.getsockname()[1], tmp_path, dsn) as api:
            await _extracted(api)


async def test_a_model_that_does_not_accept(tmp_path: Path, dsn: str) -> None:
    """A connection that hangs has a deadline of its own."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):  # the queue of a backlog of 0 holds one, listen(2)
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        async with _serving(port, tmp_path, dsn, llm__connect_timeout_s=SILENCE_S) as api:
            await _extracted(api)


@pytest.mark.parametrize("way", IN_THE_MIDST)
async def test_a_model_that_fails_in_the_midst(way: str, tmp_path: Path, dsn: str) -> None:
    """A reader who has heard words is told what ended them; others get an extracted answer."""
    bad, text = IN_THE_MIDST[way]
    between_s = SILENCE_S if way in SILENT else 30.0
    heard = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(BEGUN)
        await heard.wait()
        if bad is None:
            client.reset()
            return
        await client.send(bad)
        while bad.startswith(b"f"):  # the rest comes byte by byte
            await client.send(b"d")
            await asyncio.sleep(SILENCE_S / 5)
        await client.gone()

    async with _served(script, tmp_path, dsn, llm__token_timeout_s=between_s) as (api, state):
        quiet = Quiet(api)
        events = []
        async with api.client.post("/v1/query", json={**QUESTION, "stream": True}) as response:
            async for event in frames(response):
                events.append(event)
                if event[0] == "delta":
                    heard.set()
        assert [name for name, _ in events] == ["sources", "delta", "error"]
        assert events[-1][1]["error"]["code"] == "upstream_failed"
        assert text in events[-1][1]["error"]["message"]
        async with api.client.post("/v1/query", json=QUESTION) as response:
            answer = await response.json()
            assert (response.status, answer["degraded"]) == (200, ["llm"])
            assert response.headers["Cache-Status"] == "ragserve; fwd=miss"
        await quiet.again()
        await state.until_ended(2)
        assert state.connections == 2, "after a word nothing is tried again, and nothing was kept"


READERS = 1000


async def test_a_thousand_readers_ask_the_model_once(tmp_path: Path, dsn: str) -> None:
    """On as many sockets, some from the beginning and some in the midst: all read the same."""
    said_first, all_here = asyncio.Event(), asyncio.Event()
    words = [f"word{number} " for number in range(20)]

    async def script(client: Client) -> None:
        await client.request()
        await client.send(HEAD + said(piece(words[0])))
        said_first.set()
        await all_here.wait()
        for word in words[1:]:
            await client.send(said(piece(word)))
        await client.send(said(piece(finish="stop"), "[DONE]") + chunk(b""))
        await client.gone()

    request = b'{"query": "when is lunch served", "stream": true}'
    head = (
        b"POST /v1/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(request)
    )

    async def read(api: Api) -> str:
        url = api.client.make_url("/")
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            writer.write(head + request)
            return (await reader.read()).decode()
        finally:
            writer.close()

    async with wire(script) as state:
        config = configured(llm__base_url=f"http://127.0.0.1:{state.port}/v1")
        async with asyncio.timeout(120), serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE)
            quiet = Quiet(api)
            first = [asyncio.create_task(read(api)) for _ in range(READERS // 2)]
            await said_first.wait()
            later = [asyncio.create_task(read(api)) for _ in range(READERS - len(first))]
            flights = api.services.pipeline._questions._flights
            while f"{READERS} aboard" not in repr(flights):  # noqa: ASYNC110 - its own count
                await asyncio.sleep(0.01)
            all_here.set()
            texts = await asyncio.gather(*first, *later)
            await quiet.again()
        assert state.connections == 1
    for text in texts:
        told = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        assert "".join(one.get("text", "") for one in told) == "".join(words).strip()
        assert text.count("event: end") == 1
