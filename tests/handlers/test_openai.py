"""OpenAI's own SDK and LangChain, as they are, with nothing but their base URL changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from ragserve.embed.tokens import shared_tokenizer
from ragserve.errors import Overloaded
from ragserve.schema import QueryResponse
from tests.conftest import Api, configured, serving
from tests.embed.scripted import completion, scripted
from tests.handlers.test_ask import OFFICE, TRAVEL

LUNCH: Any = [{"role": "user", "content": "When is lunch served?"}]


def base_url(api: Api) -> str:
    return str(api.client.make_url("/v1"))


@pytest.fixture
async def sdk(api: Api) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK, connected to a server that knows two documents."""
    await api.ingest(OFFICE, TRAVEL)
    async with openai.AsyncOpenAI(base_url=base_url(api), api_key="none", max_retries=0) as client:
        yield client


async def test_the_sdk_chats(sdk: openai.AsyncOpenAI) -> None:
    """An answer has its text, its annotations and its citations; parameters unknown are ignored."""
    made = await sdk.chat.completions.create(
        model="rag", messages=LUNCH, n=1, logprobs=False, user="u", extra_body={"colour": "red"}
    )
    message = made.choices[0].message
    assert "half past twelve" in (message.content or "")
    assert message.annotations
    mark = message.annotations[0].url_citation
    assert (message.content or "")[mark.start_index : mark.end_index].startswith("[")
    assert made.model_extra is not None
    assert made.model_extra["citations"][0]["document_id"] == OFFICE["id"]
    assert made.usage is not None


async def test_the_sdk_streams(sdk: openai.AsyncOpenAI) -> None:
    """The pieces together are the whole answer; usage comes last if asked for."""
    whole = await sdk.chat.completions.create(model="rag:default", messages=LUNCH)
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="rag:default", messages=LUNCH, stream=True, stream_options={"include_usage": True}
        )
    ]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


async def test_a_follow_up_is_searched_with_its_history(sdk: openai.AsyncOpenAI) -> None:
    """A question that leans on the one before finds what that one was about."""
    said: Any = [
        *LUNCH,
        {"role": "assistant", "content": "At noon."},
        {"role": "tool", "tool_call_id": "1", "content": "ignored"},
        {"role": "user", "content": [{"type": "text", "text": "And where is it?"}]},
    ]
    made = await sdk.chat.completions.create(model="rag", messages=said)
    assert made.model_extra is not None
    assert OFFICE["id"] in {citation["document_id"] for citation in made.model_extra["citations"]}


async def test_the_sdk_raises_its_own_errors(sdk: openai.AsyncOpenAI) -> None:
    """Unknown models and bad requests are the exceptions that OpenAI's users know."""
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.chat.completions.create(model="gpt-9", messages=LUNCH)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError, match="'nowhere' does not exist"):
        await sdk.chat.completions.create(model="rag:nowhere", messages=LUNCH, stream=True)
    with pytest.raises(openai.BadRequestError, match="none is of role 'user'"):
        await sdk.chat.completions.create(model="rag", messages=[])


async def test_the_sdk_waits_as_long_as_it_is_told(api: Api) -> None:
    """A refusal with Retry-After is tried again, and then answered."""
    await api.ingest(OFFICE)
    query = api.services.pipeline.query
    refusals = 1

    async def busy_once(*arguments: Any, **options: Any) -> QueryResponse:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise Overloaded("too many questions", retry_after_s=1)
        answer: QueryResponse = await query(*arguments, **options)
        return answer

    api.services.pipeline.query = busy_once
    async with openai.AsyncOpenAI(base_url=base_url(api), api_key="none", max_retries=2) as client:
        made = await client.chat.completions.create(model="rag", messages=LUNCH)
    assert "half past twelve" in (made.choices[0].message.content or "")
    assert refusals == 0


async def test_the_sdk_comes_back_when_its_limit_allows(tmp_path: Path, dsn: str) -> None:
    """A real 429 says when to try again; OpenAI's SDK and LangChain do, and are answered."""
    config = configured(rate__query_per_minute=60)
    async with asyncio.timeout(60), serving(config, tmp_path, dsn) as api, httpx.AsyncClient() as h:
        await api.ingest(OFFICE)
        body = {"query": "When is lunch served?"}
        while (await api.post("/v1/query", body))[0] != 429:
            pass
        async with openai.AsyncOpenAI(
            base_url=base_url(api), api_key="none", max_retries=0
        ) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(model="rag", messages=LUNCH)
            assert int(refused.value.response.headers["Retry-After"]) == 1
            patient = client.with_options(max_retries=3)
            made = await patient.chat.completions.create(model="rag", messages=LUNCH)
        assert "half past twelve" in (made.choices[0].message.content or "")
        where: Any = {"base_url": base_url(api), "api_key": "none", "http_async_client": h}
        answer = await ChatOpenAI(model="rag", max_retries=3, **where).ainvoke(str(body["query"]))
        assert "half past twelve" in str(answer.content)


async def test_models_are_listed(sdk: openai.AsyncOpenAI, api: Api) -> None:
    """Collections and the embedder are models; each can be asked for."""
    names = [model.id async for model in sdk.models.list()]
    assert names == ["rag", "rag:default", api.services.embedder.name]
    assert (await sdk.models.retrieve("rag:default")).id == "rag:default"
    with pytest.raises(openai.NotFoundError):
        await sdk.models.retrieve("rag:nowhere")


async def test_embeddings_by_text_and_by_token(sdk: openai.AsyncOpenAI, api: Api) -> None:
    """Texts and their token ids have the same vector, as numbers and as base64."""
    name = api.services.embedder.name
    text = "lunch is at noon"
    ids = shared_tokenizer().encode(text, add_special_tokens=False).ids
    by_text = await sdk.embeddings.create(model=name, input=[text, "ferry"])
    by_token = await sdk.embeddings.create(model=name, input=ids, encoding_format="float")
    assert by_text.data[0].embedding == pytest.approx(by_token.data[0].embedding, abs=1e-6)
    assert len(by_text.data[1].embedding) == api.services.embedder.dimensions
    assert by_text.usage.prompt_tokens == len(ids) + 1


async def test_embeddings_that_cannot_be(sdk: openai.AsyncOpenAI, api: Api) -> None:
    """What cannot be embedded is named."""
    name = api.services.embedder.name
    for given, message in (
        ([], "there is no text"),
        (["a", ""], r"input\[1\] is empty"),
        ([10**6], "1000000 is no token"),
    ):
        with pytest.raises(openai.BadRequestError, match=message):
            await sdk.embeddings.create(model=name, input=given)
    with pytest.raises(openai.BadRequestError, match="dimensions = 7"):
        await sdk.embeddings.create(model=name, input="a", dimensions=7)
    with pytest.raises(openai.NotFoundError):
        await sdk.embeddings.create(model="text-embedding-9", input="a")


async def test_the_language_model_itself(tmp_path: Path, dsn: str) -> None:
    """The configured model's own name asks it without documents, streaming or not."""
    async with scripted(completion("A title"), completion("A title")) as upstream:
        config = configured(llm__base_url=upstream.base_url, llm__model="m-1")
        async with (
            serving(config, tmp_path, dsn) as api,
            openai.AsyncOpenAI(base_url=base_url(api), api_key="none") as client,
        ):
            made = await client.chat.completions.create(model="m-1", messages=LUNCH)
            stream = await client.chat.completions.create(model="m-1", messages=LUNCH, stream=True)
            chunks = [chunk async for chunk in stream]
    assert made.choices[0].message.content == "A title"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "A title"


@pytest.mark.usefixtures("sdk")
async def test_langchain_chats_and_embeds(api: Api) -> None:
    """LangChain's chat model invokes and streams; its embeddings embed."""
    # Its own HTTP clients are kept for the whole process; a test must leave nothing open.
    async with asyncio.timeout(60), httpx.AsyncClient() as http:
        where: Any = {"base_url": base_url(api), "api_key": "none", "http_async_client": http}
        chat = ChatOpenAI(model="rag", **where)
        answer = await chat.ainvoke("When is lunch served?")
        pieces = [piece.content async for piece in chat.astream("When is lunch served?")]
        usages = [
            piece.usage_metadata
            async for piece in chat.astream("When is lunch served?", stream_usage=True)
        ]
        embeddings = OpenAIEmbeddings(
            model=api.services.embedder.name,
            check_embedding_ctx_length=False,  # it would cut texts into tokens of OpenAI's models
            **where,
        )
        vectors = await embeddings.aembed_documents(["lunch", "ferry"])
    assert "half past twelve" in str(answer.content)
    assert any(usage is not None for usage in usages)
    assert "".join(map(str, pieces)) == answer.content
    assert [len(vector) for vector in vectors] == [api.services.embedder.dimensions] * 2
