"""What clients of OpenAI's API send, odd as it may be, is answered wherever that is possible."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests.conftest import Api
from tests.handlers.test_ask import OFFICE, TRAVEL

CHAT = "/v1/chat/completions"
ASKED = {"role": "user", "content": "When is lunch served?"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "find", "arguments": "{}"}}

WISHES: dict[str, dict[str, Any]] = {
    # Open WebUI passes on what its users set for a model, whatever server it goes to.
    "a sampler's settings": {"top_k": 500, "min_p": 0.05, "repeat_penalty": 1.1, "num_ctx": 8192},
    "a sampler's settings turned off": {"top_k": -1, "mirostat": 0, "tfs_z": 1},
    "numbers as text": {"temperature": "0.7", "max_tokens": "100", "seed": "42", "top_k": "3"},
    "numbers of the wrong kind": {"max_tokens": 100.0, "seed": 1.0, "temperature": 1, "top_k": 3.0},
    "numbers that are none": {"temperature": "hot", "seed": "", "max_tokens": {}, "top_p": []},
    "no numbers": {"temperature": None, "max_tokens": None, "seed": None, "top_k": None},
    "both limits": {"max_tokens": 100, "max_completion_tokens": 100},
    "stops": {"stop": ["\n\n", "User:"]},
    "stops that are none": {"stop": [None, 7]},
    "no stream": {"stream": None, "stream_options": None},
    "options of no stream": {"stream": "false", "stream_options": {"include_usage": None}},
    "unreadable options": {"stream_options": ["usage"]},
    "tools": {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    "several choices": {"n": 3, "logprobs": True, "top_logprobs": 5, "logit_bias": {"5": -100}},
    "a format": {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
    "a thinker's": {"reasoning_effort": "low", "verbosity": "low", "service_tier": "flex"},
    "a client's own": {"user": "u", "metadata": {"a": 1}, "chat_id": "c", "store": True, "id": 7},
}
MESSAGES: dict[str, list[Any]] = {
    "a developer's": [{"role": "developer", "content": "Be brief."}, ASKED],
    "parts": [{"role": "user", "content": [{"type": "text", "text": ASKED["content"]}, PICTURE]}],
    "parts of other types": [
        {"role": "user", "content": [{"type": "input_text", "text": ASKED["content"]}, PICTURE]}
    ],
    "parts without types": [{"role": "user", "content": [{"text": ASKED["content"]}]}],
    "plain parts": [{"role": "user", "content": [ASKED["content"]]}],
    "calls of tools": [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "noon"}]},
    ],
    "calls of functions": [
        {"role": "assistant", "function_call": {"name": "find", "arguments": ""}},
        {"role": "function", "name": "find", "content": None},
        ASKED,
    ],
    "an unfinished answer": [ASKED, {"role": "assistant", "content": "It is"}],
    "names and extras": [{**ASKED, "name": "Ann", "id": "1", "timestamp": 5, "files": []}],
    "a role of its own": [{"role": "context", "content": "x"}, ASKED],
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_whatever_else_is_asked_there_is_an_answer(api: Api, streamed: bool) -> None:
    """Wishes that cannot be granted or understood, and messages of all shapes: never a refusal."""
    await api.ingest(OFFICE, TRAVEL)
    bodies = {name: {"messages": [ASKED], **more} for name, more in WISHES.items()}
    bodies |= {name: {"messages": messages} for name, messages in MESSAGES.items()}
    for name, body in bodies.items():
        body = {"model": "rag", **body, **({"stream": True} if streamed else {})}
        async with api.client.post(CHAT, json=body) as response:
            text = await response.text()
        assert response.status == 200, (name, text)
        assert "half past twelve" in text, name
        assert text.endswith("data: [DONE]\n\n") is streamed, name


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "messages"),
        ({"mode": "chat"}, "mode"),
        ({"filter": "year"}, "filter"),
        ({"temperature": "hot", "mode": "chat"}, "mode"),
    ],
)
async def test_what_cannot_be_answered_is_named(api: Api, wrong: Any, param: str) -> None:
    """A question that is none, and what only this server's own clients send, are told apart."""
    status, answer = await api.post(CHAT, {"model": "rag", "messages": [ASKED], **wrong})
    assert (status, answer["error"]["param"]) == (400, param)


async def test_whether_something_is_there(api: Api) -> None:
    """HEAD says what GET would, without its body; other methods are named."""
    for path in ("/health", "/ready", "/metrics", "/v1/models", "/v1/models/rag"):
        async with api.client.head(path) as response:
            assert (response.status, await response.read()) == (200, b"")
    async with api.client.head("/v1/models/none") as response:
        assert (response.status, await response.read()) == (404, b"")
    async with api.client.options(CHAT, headers={"Origin": "http://a.example"}) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert "Access-Control-Allow-Origin" not in response.headers
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_the_sdks_own_ways_of_streaming(api: Api) -> None:
    """Its stream helper puts the chunks together to what is answered whole; so without asyncio."""
    await api.ingest(OFFICE)
    url = str(api.client.make_url("/v1"))
    question: Any = [ASKED]

    def ask() -> tuple[Any, list[Any]]:
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model="rag", messages=question)
            stream = client.chat.completions.create(model="rag", messages=question, stream=True)
            return whole, list(stream)

    whole, chunks = await asyncio.to_thread(ask)
    said = whole.choices[0].message
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said.content
    async with (
        openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client,
        client.chat.completions.stream(
            model="rag",
            messages=question,
            stream_options={"include_usage": True},
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        made = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= set(kinds)
    assert made.choices[0].message.content == said.content
    assert made.choices[0].message.annotations == said.annotations
    assert made.usage == whole.usage


async def test_langchain_raises_what_openai_says(api: Api) -> None:
    """Errors are those of OpenAI's SDK, with our words; tools are bound in vain."""
    await api.ingest(OFFICE)
    async with httpx.AsyncClient() as http:
        where: Any = {
            "base_url": str(api.client.make_url("/v1")),
            "api_key": "none",
            "http_async_client": http,
            "max_retries": 0,
        }
        with pytest.raises(openai.NotFoundError, match="model 'gpt-9' does not exist"):
            await ChatOpenAI(model="gpt-9", **where).ainvoke("lunch?")
        with pytest.raises(openai.NotFoundError, match="'nowhere' does not exist"):
            async for _ in ChatOpenAI(model="rag:nowhere", **where).astream("lunch?"):
                pass
        with_tools = ChatOpenAI(model="rag", **where).bind_tools([TOOL])
        answer = await with_tools.ainvoke(json.dumps("When is lunch served?"))
    assert "half past twelve" in str(answer.content)
