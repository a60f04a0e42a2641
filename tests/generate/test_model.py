"""A chat model elsewhere: its answer with citations, or an error that names it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ragserve.errors import DeadlineExceeded, UpstreamFailed
from ragserve.flow.deadline import deadline_after
from ragserve.generate import NO_CONVERSATION, Answer, LanguageModel
from ragserve.schema import Usage
from ragserve.upstream import upstream
from tests.conftest import configured
from tests.embed.scripted import HANG, Reply, ScriptedServer, Step, completion, scripted
from tests.generate.samples import passages

KEY = "sk-very-secret"
FOUND = passages("Water boils at 100 degrees.", "Water freezes at 0 degrees.")
ANSWER = completion("At 100 degrees [1].")


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause."""
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)


@asynccontextmanager
async def _model(
    *script: Step, **settings: object
) -> AsyncIterator[tuple[LanguageModel, ScriptedServer]]:
    async with scripted(*script) as server:
        chosen = {"base_url": server.base_url, "api_key": KEY, "model": "m", **settings}
        config = configured(**{f"llm__{name}": value for name, value in chosen.items()})
        model = LanguageModel(config.llm)
        try:
            yield model, server
        finally:
            await model.close()


async def _ask(model: LanguageModel, budget_s: float = 30.0) -> Answer:
    now = asyncio.get_running_loop().time()
    said: list[bytes] = []
    prompt = model.prompt("When does it boil?", FOUND, NO_CONVERSATION)
    deadline = deadline_after(budget_s, now)
    answer = await model.answer(prompt, NO_CONVERSATION.options, deadline, said.append)
    assert json.loads(b'"%b"' % b"".join(said)) == answer.text
    return answer


async def test_an_answer_comes_with_its_citations_and_costs() -> None:
    """Marks become citations; model and usage are as the server says."""
    usage = {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99}
    reply = completion("  At 100 degrees [1], not at 0 [2, 5]. ", model="m-2025", usage=usage)
    async with _model(reply) as (model, _):
        answer = await _ask(model)
    assert answer.text == "At 100 degrees [1], not at 0 [2]."
    assert [(c.index, c.document_id) for c in answer.citations] == [(1, "doc-1"), (2, "doc-2")]
    assert (answer.model, answer.usage) == ("m-2025", Usage(90, 9, 99))


async def test_a_sparing_server_is_understood() -> None:
    """Without a model's name and usage the configured name and an estimate are shown; totals are
    added up.
    """
    counted = completion("Yes.", usage={"prompt_tokens": 2, "completion_tokens": 1})
    async with _model(completion("Yes."), counted) as (model, server):
        bare = await _ask(model)
        prompt = sum(len(message["content"]) for message in server.asked[0]["messages"]) // 4
        assert prompt > 50
        assert (bare.model, bare.usage) == ("m", Usage(prompt, 1, prompt + 1))
        assert (await _ask(model)).usage == Usage(2, 1, 3)


async def test_another_server_helps_out() -> None:
    """When the first server fails the next one is asked, by its own name, key and model."""
    async with scripted(ANSWER) as second:
        other = {"base_url": second.base_url, "api_key": "sk-other", "model": "n", "priority": 1}
        async with _model(Reply(b"oops", 500), upstreams=[other]) as (model, first):
            answer = await _ask(model)
    assert (answer.text, answer.model) == ("At 100 degrees [1].", "n")
    assert [asked["model"] for asked in (*first.asked, *second.asked)] == ["m", "n"]


async def test_the_request_is_what_the_configuration_says() -> None:
    """The server gets model, limits, key, sources and question, at its address."""
    async with _model(ANSWER, max_tokens=77, temperature=0.5) as (model, server):
        await _ask(model)
    (asked,) = server.asked
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("m", 77, 0.5)
    assert "[2] Title\nWater freezes at 0 degrees." in asked["messages"][1]["content"]
    assert asked["messages"][1]["content"].endswith("\n\nQuestion: When does it boil?")
    assert server.keys == [f"Bearer {KEY}"]
    assert server.paths == ["/v1/chat/completions"]


async def test_without_a_key_none_is_sent() -> None:
    """A local server is not shown an empty key."""
    async with _model(ANSWER, api_key="") as (model, server):
        await _ask(model)
    assert server.keys == [None]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_a_passing_failure_is_tried_again(status: int) -> None:
    """After 429 or a server's error the question is asked again, and the answer is the answer."""
    async with _model(Reply(b"busy", status), ANSWER) as (model, server):
        assert (await _ask(model)).text == "At 100 degrees [1]."
    assert server.asked[0] == server.asked[1]


async def test_a_lasting_failure_is_named_after_its_attempts() -> None:
    """After the configured tries the error names server, status and answer, cut short."""
    async with _model(Reply(b"x" * 1000, 500), attempts=2) as (model, server):
        with pytest.raises(UpstreamFailed) as failed:
            await _ask(model)
        url = f"{server.base_url}/chat/completions"
        assert failed.value.message == f"language model {url}: status 500: {'x' * 300}"
    assert len(server.asked) == 2


async def test_a_server_that_is_not_there_is_named() -> None:
    """A refused connection is an upstream failure with the address."""
    async with _model(ANSWER) as (_, server):
        base_url = server.base_url
    model = LanguageModel(configured(llm__base_url=base_url).llm)
    with pytest.raises(UpstreamFailed, match=base_url):
        await _ask(model)
    await model.close()


GARBAGE = {
    "no json": Reply(b"<html>"),
    "no utf-8": Reply(b'{"choices": [{"message": {"content": "\xff"}}]}'),
    "another shape": Reply({"error": {"message": "no"}}),
    "no choices": Reply({"choices": []}),
    "no text": completion(None),
    "empty text": completion(" \n"),
    "nothing": Reply(b""),
}


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE.keys())
async def test_an_unusable_answer_is_no_answer(reply: Reply) -> None:
    """What is no chat completion with a text is an upstream failure, asked for once."""
    async with _model(reply) as (model, server):
        with pytest.raises(UpstreamFailed, match=r"^language model: (unusable|empty) answer"):
            await _ask(model)
    assert len(server.asked) == 1


async def test_a_long_answer_is_read_to_its_end() -> None:
    """An answer of many network packets is read entirely before it is judged."""
    text = "Water boils. " * 100_000
    async with _model(completion(text)) as (model, _):
        assert (await _ask(model)).text == text.strip()


@pytest.mark.parametrize("script", [[HANG], [Reply(b"busy", 429), HANG]])
async def test_the_requests_deadline_ends_the_wait(script: list[Step]) -> None:
    """A model that hangs, at once or when asked again, costs no more than the request has."""
    async with _model(*script) as (model, server):
        with pytest.raises(DeadlineExceeded) as late:
            await _ask(model, budget_s=0.1)
        assert late.value.message == "language model: no answer within the request's 0.1 s"
        assert server.hanging.is_set()


async def test_a_model_that_hangs_is_given_up() -> None:
    """A call ends after the model's own timeout, before the request's deadline."""
    async with _model(HANG, timeout_s=0.05, attempts=1) as (model, _):
        with pytest.raises(UpstreamFailed, match="language model"):
            await _ask(model)


@pytest.mark.parametrize("status", [401, 500])
async def test_the_key_never_appears_in_an_error(status: int) -> None:
    """A server that quotes the key it was given does not get it into the logs."""
    async with _model(Reply(f"Incorrect API key provided: {KEY}".encode(), status)) as (model, _):
        with pytest.raises(UpstreamFailed) as failed:
            await _ask(model)
    assert "Incorrect API key provided" in failed.value.message
    assert KEY not in str(failed.value)


async def test_a_check_asks_for_the_models() -> None:
    """The check passes if the server lists its models, and is tried once."""
    async with _model(Reply({"data": []}), Reply(b"no", 500)) as (model, server):
        await model.check()
        with pytest.raises(UpstreamFailed, match="/models: status 500: no"):
            await model.check()
    assert server.paths == ["/v1/models"] * 2
