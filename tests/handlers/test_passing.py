"""Requests to the language model itself: there and back as they are, refusals included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from ragserve.metrics import LLM_TOKENS
from ragserve.upstream import upstream
from tests.conftest import Api, configured, serving
from tests.embed.scripted import Reply, ScriptedServer, Step, completion, scripted
from tests.generate.test_dictation import STOP, piece
from tests.handlers.test_ask import OFFICE
from tests.handlers.test_stream import counted
from tests.upstream.wire import END, HEAD, hang, said, then, wire

KEY = "sk-very-secret"
CHAT = "/v1/chat/completions"
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Chat History:
<chat_history>
USER: When is lunch served?
ASSISTANT: At half past twelve [1].
</chat_history>"""
LIBRE = (
    "Provide a concise, 5-word-or-less title for the conversation, using title case conventions."
    " Only return the title itself.\n\nConversation:\nUser: When is lunch?\nAI: At noon."
)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause."""
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)


@asynccontextmanager
async def _served(
    tmp_path: Path, dsn: str, *script: Step, ingest: bool = False, **settings: object
) -> AsyncIterator[tuple[Api, ScriptedServer]]:
    async with scripted(*script) as server:
        config = configured(
            llm__base_url=server.base_url, llm__api_key=KEY, llm__model="m", **settings
        )
        async with serving(config, tmp_path, dsn, ingest=ingest) as api:
            yield api, server


REFUSALS = {
    "a bad request": Reply({"error": {"message": "tools[0]: no name", "param": "tools"}}, 400),
    "a context too long": Reply({"error": {"code": "context_length_exceeded"}}, 400),
    "an unprocessable one": Reply({"detail": [{"loc": ["body"]}]}, 422),
    "too many": Reply({"error": {"message": "slow down"}}, 429),
    "an overloaded one": Reply(b"busy", 503),
}


@pytest.mark.parametrize("reply", REFUSALS.values(), ids=REFUSALS.keys())
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_refusal_is_the_models_own(
    tmp_path: Path, dsn: str, reply: Reply, streamed: bool
) -> None:
    """Status and body are what the model's server said, so that clients understand them."""
    async with _served(tmp_path, dsn, reply) as (api, _):
        async with api.client.post(CHAT, json={**ASKED, "stream": streamed}) as response:
            assert response.status == reply.status
            body = await response.read()
        expected = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        assert body.replace(b" ", b"") == expected.replace(b" ", b"")


@pytest.mark.parametrize("status", [401, 403])
async def test_this_servers_key_is_nobodys_business(tmp_path: Path, dsn: str, status: int) -> None:
    """That the model's server does not know our key is our failure, not the client's."""
    reply = Reply({"error": {"message": f"Incorrect API key {KEY}"}}, status)
    async with _served(tmp_path, dsn, reply) as (api, _):
        answered, answer = await api.post(CHAT, ASKED)
    assert (answered, answer["error"]["code"]) == (502, "upstream_failed")
    assert KEY not in str(answer)


async def test_tools_go_there_and_back(tmp_path: Path, dsn: str) -> None:
    """The SDK's tools, its formats and whatever it sends reach the model; so do calls come back."""
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    tools: Any = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
    async with _served(tmp_path, dsn, Reply({"choices": [choice]})) as (api, server):
        url = str(api.client.make_url("/v1"))
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            made = await client.chat.completions.create(
                model="m",
                messages=ASKED["messages"],
                tools=tools,
                n=2,
                logprobs=True,
                response_format={"type": "json_object"},
                extra_body={"top_k": "forty", "mode": 3, "timeout": "long"},
            )
    assert made.choices[0].message.tool_calls is not None
    asked = server.asked[0]
    assert (asked["tools"], asked["n"], asked["logprobs"], asked["top_k"]) == (
        tools,
        2,
        True,
        "forty",
    )


async def test_each_server_has_its_name(tmp_path: Path, dsn: str) -> None:
    """The model's name asks whoever is there, by the name used there; another one that server."""
    async with scripted(completion("b")) as second:
        more = [{"base_url": second.base_url, "model": "small", "priority": 1}]
        async with _served(tmp_path, dsn, Reply(b"no", 500), llm__upstreams=more) as (api, first):
            _, models = await api.get("/v1/models")
            assert {"m", "small"} <= {model["id"] for model in models["data"]}
            for name in ("m", "small"):
                status, answer = await api.post(CHAT, {**ASKED, "model": name, "x": 1})
                assert (status, answer["choices"][0]["message"]["content"]) == (200, "b")
            assert [asked["model"] for asked in first.asked] == ["m"]
            assert second.asked == [{**ASKED, "model": "small", "x": 1}] * 2
            status, _ = await api.post(CHAT, {**ASKED, "model": "large"})
            assert status == 404


@pytest.mark.parametrize("task", [TITLE, LIBRE], ids=["Open WebUI", "LibreChat"])
async def test_a_clients_side_task_is_no_question(tmp_path: Path, dsn: str, task: str) -> None:
    """A title asked of the documents' model is written by the language model alone."""
    long = task.replace("When is lunch", "When is lunch " + "or dinner " * 2000)
    title = '{"title": "Lunch"}'
    async with _served(tmp_path, dsn, completion(title), ingest=True) as (api, server):
        await api.ingest(OFFICE)
        message = {"role": "user", "content": long}
        body = {"model": "rag", "messages": [message], "stream": False, "max_tokens": 50}
        status, answer = await api.post(CHAT, body)
        assert (status, answer["choices"][0]["message"]["content"]) == (200, title)
        assert server.asked == [{**body, "model": "m"}]


async def test_what_chat_clients_send_is_understood(api: Api) -> None:
    """Open WebUI's and LibreChat's requests with their extras, parts and pictures are answered."""
    await api.ingest(OFFICE)
    parts = [
        {"type": "text", "text": "When is lunch served?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
    ]
    extras: dict[str, Any] = {
        "stream_options": None,
        "n": 1,
        "logprobs": None,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "user": "u",
        "chat_id": "c",
        "session_id": "s",
        "metadata": {"a": 1},
        "reasoning_effort": "low",
        "temperature": 1,
        "parallel_tool_calls": False,
    }
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello."}], "refusal": None},
        {"role": "user", "content": parts, "name": "Ann"},
    ]
    body = {"model": "rag:default", "messages": messages, **extras}
    status, answer = await api.post(CHAT, body)
    assert status == 200
    assert "half past twelve" in answer["choices"][0]["message"]["content"]
    assert answer["object"] == "chat.completion"
    _, models = await api.get("/v1/models")
    assert models["object"] == "list"
    for model in models["data"]:
        assert sorted(model) == ["created", "id", "object", "owned_by"]


async def test_a_stream_that_is_long_in_coming_is_kept_alive(tmp_path: Path, dsn: str) -> None:
    """While the model reads its prompt, comments say that the answer is still to come."""
    async with wire(hang) as state:
        config = configured(
            llm__base_url=f"http://127.0.0.1:{state.port}/v1",
            llm__model="m",
            llm__first_token_timeout_s=0.5,
            llm__attempts=1,
            stream__keepalive_s=0.05,
        )
        async with (
            asyncio.timeout(30),
            serving(config, tmp_path, dsn, ingest=False) as api,
            api.client.post(CHAT, json={**ASKED, "stream": True}) as response,
        ):
            assert response.status == 200
            text = await response.text()
    assert text.startswith(": keep-alive\n\n: keep-alive\n\n")
    assert "nothing heard within 0.5 s" in text.rpartition("data: ")[2]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_whole_replys_tokens_are_counted(tmp_path: Path, dsn: str, streamed: bool) -> None:
    """A server that does not stream, or say what it took, is paid for, too; a refusal is not."""
    asked = {**ASKED, "stream": streamed}
    refusal = Reply({"error": {"message": "no"}}, 400)
    script = (refusal, completion("x" * 400), completion("more"))
    async with _served(tmp_path, dsn, *script, rate__tokens_per_minute=100) as (api, server):
        before = counted(LLM_TOKENS, "completion")
        for status in (400, 200, 429):
            async with api.client.post(CHAT, json=asked) as response:
                assert response.status == status
        assert counted(LLM_TOKENS, "completion") - before == 100
        assert len(server.asked) == 2


@pytest.mark.parametrize("says", [True, False])
async def test_a_streams_tokens_are_counted(tmp_path: Path, dsn: str, says: bool) -> None:
    """As the model says, or if it does not, by its events: limit and metrics know either way."""
    before = counted(LLM_TOKENS, "completion")
    script = then(HEAD + said(piece("Hello")) + (STOP if says else b"") + END)
    async with wire(script) as state:
        config = configured(
            llm__base_url=f"http://127.0.0.1:{state.port}/v1",
            llm__model="m",
            rate__tokens_per_minute=20,
        )
        async with asyncio.timeout(30), serving(config, tmp_path, dsn, ingest=False) as api:
            async with api.client.post(CHAT, json={**ASKED, "stream": True}) as response:
                await response.read()
            status, _ = await api.post(CHAT, ASKED)
    assert status == 429
    assert counted(LLM_TOKENS, "completion") - before == (9 if says else 2)


@pytest.mark.parametrize("leaves", [True, False], ids=["the reader leaves", "the model breaks off"])
async def test_what_came_of_a_stream_is_paid_for(tmp_path: Path, dsn: str, leaves: bool) -> None:
    """A stream that has no end has had its words: they count, and so does what was asked."""
    words = HEAD + said(*[piece("word")] * 30)
    script = then(words) if leaves else then(words, reset=True)
    before = counted(LLM_TOKENS, "completion")
    async with wire(script) as state:
        config = configured(
            llm__base_url=f"http://127.0.0.1:{state.port}/v1",
            llm__model="m",
            rate__tokens_per_minute=20,
        )
        async with asyncio.timeout(30), serving(config, tmp_path, dsn, ingest=False) as api:
            async with api.client.post(CHAT, json={**ASKED, "stream": True}) as response:
                text = b""
                while text.count(b"word") < 30:
                    text += await response.content.readany()
                if not leaves:
                    await response.read()
            await state.until_ended(1)
            while api.services.in_flight.count:  # noqa: ASYNC110 - the server's own count
                await asyncio.sleep(0)
            assert (await api.post(CHAT, ASKED))[0] == 429
    assert counted(LLM_TOKENS, "completion") - before == 30
