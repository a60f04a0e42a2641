"""A model's stream on its way to the client: relayed as it comes, given up with the last reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ragserve.metrics import FIRST_TEXT_SECONDS, LLM_TOKENS
from tests.conftest import Api, configured, serving
from tests.generate.test_dictation import STOP, WORDS, piece
from tests.handlers.test_ask import OFFICE
from tests.handlers.test_stream import frames
from tests.upstream.wire import END, HEAD, Client, Script, Wire, hang, said, then, wire

QUESTION = {"query": "when is lunch served", "stream": True}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


@asynccontextmanager
async def _served(
    script: Script, tmp_path: Path, dsn: str, **settings: object
) -> AsyncIterator[tuple[Api, Wire]]:
    async with wire(script) as state:
        config = configured(
            llm__base_url=f"http://127.0.0.1:{state.port}/v1", llm__model="m", **settings
        )
        async with serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE)
            yield api, state


async def test_a_models_words_reach_the_reader(tmp_path: Path, dsn: str) -> None:
    """Sources, the model's words, its usage; kept afterwards, so that it is asked once."""
    before = FIRST_TEXT_SECONDS._sum.get()
    async with (
        _served(then(HEAD + WORDS + STOP + END), tmp_path, dsn) as (api, state),
        asyncio.timeout(30),
    ):
        for _ in range(2):
            async with api.client.post("/v1/query", json=QUESTION) as response:
                events = [event async for event in frames(response)]
            assert events[0][0] == "sources"
            words = "".join(data["text"] for name, data in events if name == "delta")
            assert words == "At 100 degrees [1]."
            assert events[-1][1]["usage"]["completion_tokens"] == 9
    assert state.connections == 1
    assert FIRST_TEXT_SECONDS._sum.get() > before


async def test_a_stream_that_breaks_is_told_and_not_kept(tmp_path: Path, dsn: str) -> None:
    """The reader gets what came and an error; who asks again gets a new attempt."""
    script = then(HEAD + said(piece("At 100")), reset=True)
    async with _served(script, tmp_path, dsn) as (api, state), asyncio.timeout(30):
        for number in (1, 2):
            async with api.client.post("/v1/query", json=QUESTION) as response:
                events = [event async for event in frames(response)]
            assert [name for name, _ in events] == ["sources", "delta", "error"]
            assert events[-1][1]["error"]["code"] == "upstream_failed"
            assert state.connections == number


STAGES: dict[str, tuple[Script, dict[str, Any]]] = {
    "before the head": (hang, QUESTION),
    "before the first word": (then(HEAD), QUESTION),
    "in mid-stream": (then(HEAD + said(piece("At"))), QUESTION),
    "not streaming": (hang, {**QUESTION, "stream": False}),
}


@pytest.mark.parametrize(("stage", "body"), STAGES.values(), ids=STAGES.keys())
async def test_the_last_reader_takes_the_call_along(
    stage: Script, body: dict[str, Any], tmp_path: Path, dsn: str
) -> None:
    """One reader of two may leave; when the other does, the model's connection is closed."""
    reached = asyncio.Event()

    async def script(client: Client) -> None:
        reached.set()
        await stage(client)

    async def read(api: Api) -> None:
        async with api.client.post("/v1/query", json=body) as response:
            await response.read()

    async with _served(script, tmp_path, dsn) as (api, state), asyncio.timeout(30):
        first = asyncio.create_task(read(api))
        await reached.wait()
        second = asyncio.create_task(read(api))
        while api.services.in_flight.count < 2:  # noqa: ASYNC110 - the server's own count
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (state.connections, state.ended) == (1, 0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await state.until_ended(1)


async def test_a_clients_own_stream_is_passed_on_as_it_is(tmp_path: Path, dsn: str) -> None:
    """Asked by the model's own name, request and stream travel unchanged, piece by piece."""
    raw = b'data: {"x": 1}\n\n: ping\r\n\r\ndata: [DONE]\n\n'
    asked: list[Any] = []
    first_read = asyncio.Event()

    async def script(client: Client) -> None:
        asked.append(json.loads((await client.request()).split(b"\r\n\r\n", 1)[1]))
        await client.send(HEAD + b"%x\r\n%b\r\n" % (len(raw), raw))
        await first_read.wait()
        await client.send(said("[DONE]") + b"0\r\n\r\n")
        await client.gone()

    odd = {**CHAT, "top_k": 7, "some_parameter": [1, 2]}
    async with (
        asyncio.timeout(30),
        _served(script, tmp_path, dsn) as (api, _),
        api.client.post("/v1/chat/completions", json=odd) as response,
    ):
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert await response.content.readexactly(len(raw)) == raw
        first_read.set()
        assert await response.read() == b"data: [DONE]\n\n"
    assert asked == [odd]


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answers_tokens_are_counted_once(tmp_path: Path, dsn: str, streamed: bool) -> None:
    """What it took is more than a minute's tokens: the next question waits, a kept one does not."""
    asked = {**QUESTION, "stream": streamed}
    async with (
        _served(then(HEAD + WORDS + STOP + END), tmp_path, dsn, rate__tokens_per_minute=10) as (
            api,
            _,
        ),
        asyncio.timeout(30),
    ):
        async with api.client.post("/v1/query", json=asked) as response:
            assert response.status == 200
            await response.read()
        async with api.client.post("/v1/query", json={"query": "another"}) as response:
            assert response.status == 429
            assert "tokens: 10 tokens a minute" in (await response.json())["error"]["message"]
            assert int(response.headers["Retry-After"]) >= 1
        async with api.client.post("/v1/query", json=asked) as response:
            assert response.status == 200, "kept"
        async with api.client.post("/v1/search", json={"query": "another"}) as response:
            assert response.status == 200


@pytest.mark.parametrize("stays", [True, False], ids=["another one reads on", "nobody reads on"])
async def test_whoever_asked_first_pays_though_they_leave(
    tmp_path: Path, dsn: str, stays: bool
) -> None:
    """Words that were said on their behalf count, whether the answer comes to its end or not."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(HEAD + said(*[piece("words ")] * 30))
        began.set()
        await go_on.wait()
        await client.send(STOP + END)
        await client.gone()

    async def read(api: Api, heard: asyncio.Event) -> None:
        words = 0
        async with api.client.post("/v1/query", json=QUESTION) as response:
            async for name, data in frames(response):
                words += data["text"].count("words") if name == "delta" else 0
                if words == 30:
                    heard.set()

    async with (
        _served(script, tmp_path, dsn, rate__tokens_per_minute=10) as (api, _),
        asyncio.timeout(30),
    ):
        heard, heard_too = asyncio.Event(), asyncio.Event()
        before = LLM_TOKENS.labels("completion")._value.get()
        first = asyncio.create_task(read(api, heard))
        await heard.wait()
        if stays:
            second = asyncio.create_task(read(api, heard_too))
            await heard_too.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        while api.services.in_flight.count > stays:  # noqa: ASYNC110 - the server's own count
            await asyncio.sleep(0)
        go_on.set()
        if stays:
            await second
        status, answer = await api.post("/v1/query", {"query": "another"})
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    counted = LLM_TOKENS.labels("completion")._value.get() - before
    assert counted == (9 if stays else len("words " * 30) // 4 - 1), "a space is held back"
