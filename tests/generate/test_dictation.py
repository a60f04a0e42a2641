"""A chat model that writes word by word: heard at once, and never half an answer taken for one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ragserve.errors import UpstreamFailed
from ragserve.flow.deadline import deadline_after
from ragserve.generate import NO_CONVERSATION, Answer, LanguageModel
from ragserve.metrics import LLM_TOKENS, TEXT_GAP_SECONDS, UPSTREAM_ERRORS
from ragserve.schema import Usage
from ragserve.upstream import upstream
from tests.conftest import configured
from tests.generate.samples import passages
from tests.upstream.wire import END, HEAD, Client, Script, Wire, chunk, hang, said, then, wire

FOUND = passages("Water boils at 100 degrees.", "Water freezes at 0 degrees.")


def piece(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    """Return an event's data with a delta."""
    delta = {} if text is None else {"content": text}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


USAGE = {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99}
STOP = said(piece(finish="stop"), json.dumps({"choices": [], "usage": USAGE}))
WORDS = said(piece("", model="m-1"), piece("At 100"), piece(" degrees [1"), piece("]."))


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause."""
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)


@asynccontextmanager
async def _model(script: Script, **settings: object) -> AsyncIterator[tuple[LanguageModel, Wire]]:
    async with wire(script) as state:
        chosen = {"base_url": f"http://127.0.0.1:{state.port}/v1", "model": "m", **settings}
        model = LanguageModel(
            configured(**{f"llm__{name}": value for name, value in chosen.items()}).llm
        )
        try:
            yield model, state
        finally:
            await model.close()


async def _ask(
    model: LanguageModel, said: list[str], say: Callable[[bytes], None] | None = None
) -> Answer:
    prompt = model.prompt("When does it boil?", FOUND, NO_CONVERSATION)
    deadline = deadline_after(30.0, asyncio.get_running_loop().time())

    def note(words: bytes) -> None:
        said.append(json.loads(b'"%b"' % words))

    return await model.answer(prompt, NO_CONVERSATION.options, deadline, say or note)


async def test_words_are_said_as_they_come() -> None:
    """Each piece is said before the next is sent, but for what may become a mark."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def script(client: Client) -> None:
        request = json.loads((await client.request()).split(b"\r\n\r\n", 1)[1])
        assert (request["stream"], request["stream_options"]) == (True, {"include_usage": True})
        await client.send(HEAD)
        for text, becomes in (("At 100", "At 100"), (" degrees [", " degrees"), ("1, 2]!", "")):
            await client.send(said(piece(text)))
            if becomes:
                assert await heard.get() == becomes
        await client.send(STOP + END)

    said_all: list[str] = []
    async with _model(script) as (model, _):
        prompt = model.prompt("When does it boil?", FOUND, NO_CONVERSATION)
        deadline = deadline_after(30.0, asyncio.get_running_loop().time())

        def say(words: bytes) -> None:
            said_all.append(json.loads(b'"%b"' % words))
            heard.put_nowait(said_all[-1])

        answer = await model.answer(prompt, NO_CONVERSATION.options, deadline, say)
    assert "".join(said_all) == answer.text == "At 100 degrees [1][2]!"
    assert [citation.index for citation in answer.citations] == [1, 2]
    assert (answer.usage, answer.complete) == (Usage(90, 9, 99), True)


async def test_gaps_are_told_when_they_are_read() -> None:
    """What is kept aside falls into its bucket, and counts once."""
    name = "ragserve_text_gap_seconds"

    def read() -> tuple[float, float, float]:
        below = REGISTRY.get_sample_value(f"{name}_bucket", {"le": "0.01"}) or 0.0
        above = REGISTRY.get_sample_value(f"{name}_bucket", {"le": "0.025"}) or 0.0
        return below, above, REGISTRY.get_sample_value(f"{name}_sum") or 0.0

    before = read()
    TEXT_GAP_SECONDS.observe(0.02)
    for _ in range(2):
        below, above, total = read()
        assert (below - before[0], above - before[1]) == (0, 1)
        assert total - before[2] == pytest.approx(0.02)


async def test_tokens_and_gaps_are_counted() -> None:
    """Usage comes with the stream's last event; what arrives together is one piece."""
    tokens = LLM_TOKENS.labels("completion")._value.get()
    gaps = REGISTRY.get_sample_value("ragserve_text_gap_seconds_count") or 0.0
    pieces: list[str] = []
    async with _model(then(HEAD + WORDS + STOP + END)) as (model, _):
        answer = await _ask(model, pieces)
    assert (answer.text, answer.model) == ("At 100 degrees [1].", "m-1")
    assert LLM_TOKENS.labels("completion")._value.get() == tokens + 9
    counted = REGISTRY.get_sample_value("ragserve_text_gap_seconds_count") or 0.0
    assert counted - gaps < 3


ENDS = {
    "cut at its length": (WORDS + said(piece(finish="length")) + END, False),
    "filtered": (WORDS + said(piece(finish="content_filter")) + END, False),
    "ended without a reason": (WORDS + END, False),
    "ended without [DONE]": (WORDS + STOP + chunk(b""), True),
}


@pytest.mark.parametrize(("stream", "complete"), ENDS.values(), ids=ENDS.keys())
async def test_only_a_whole_answer_is_complete(stream: bytes, complete: bool) -> None:
    """Nothing but finish_reason stop makes an answer that may be kept."""
    async with _model(then(HEAD + stream)) as (model, _):
        assert (await _ask(model, [])).complete is complete


BREAKS = {
    "garbage": (said("{nonsense"), "unusable event"),
    "another shape": (said('{"choices": 7}'), "unusable event"),
    "no UTF-8": (chunk(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'), "unusable"),
    "an error": (
        said('{"error": {"message": "overloaded"}}'),
        "an error in mid-stream.*overloaded",
    ),
    "a giant event": (chunk(b"data: " + b"x" * 2**20 + b"\n"), "an event over"),
    "a broken chunk": (b"zz\r\n", "no HTTP reply"),
}


@pytest.mark.parametrize(("bad", "text"), BREAKS.values(), ids=BREAKS.keys())
async def test_what_breaks_off_is_not_begun_again(bad: bytes, text: str) -> None:
    """After the first words a failure is final, has a name and is counted."""
    failed = UPSTREAM_ERRORS
    before = sum(sample.value for metric in failed.collect() for sample in metric.samples)
    pieces: list[str] = []
    heard = asyncio.Event()

    def say(words: bytes) -> None:
        pieces.append(json.loads(b'"%b"' % words))
        heard.set()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(HEAD + said(piece("At 100")))
        await heard.wait()
        await client.send(bad)
        await client.gone()

    async with _model(script, attempts=3) as (model, state):
        with pytest.raises(UpstreamFailed, match=text):
            await _ask(model, [], say)
        await state.until_ended(1)
    assert pieces == ["At 100"]
    assert state.connections == 1
    after = sum(sample.value for metric in failed.collect() for sample in metric.samples)
    assert after == before + 1


async def test_what_breaks_before_the_first_word_is_tried_again() -> None:
    """A stream that fails before any text leaves no trace in the answer."""
    tries: list[int] = []

    async def script(client: Client) -> None:
        await client.request()
        tries.append(1)
        if len(tries) == 1:
            await client.send(HEAD + said(piece("", model="other")))
            client.reset()
        else:
            await client.send(HEAD + WORDS + STOP + END)
            await client.gone()

    pieces: list[str] = []
    async with _model(script, attempts=2) as (model, _):
        answer = await _ask(model, pieces)
    assert "".join(pieces) == answer.text == "At 100 degrees [1]."
    assert (answer.model, len(tries)) == ("m-1", 2)


@pytest.mark.parametrize(
    ("script", "settings"),
    [
        (hang, {"first_token_timeout_s": 0.05}),
        (then(HEAD), {"first_token_timeout_s": 0.05}),
        (then(HEAD + said(piece("a"))), {"token_timeout_s": 0.05}),
    ],
    ids=["before the head", "before the first event", "in mid-stream"],
)
async def test_silence_has_an_end(script: Script, settings: dict[str, object]) -> None:
    """A model that falls silent is given up, whenever it does."""
    async with _model(script, attempts=1, **settings) as (model, state):
        with pytest.raises(UpstreamFailed, match=r"0\.05 s"):
            await _ask(model, [])
        await state.until_ended(1)


@pytest.mark.parametrize("stage", [hang, then(HEAD), then(HEAD + said(piece("a")))])
async def test_whoever_leaves_ends_the_call(stage: Script) -> None:
    """Cancelling closes the connection to the model, before its head, its words, its end."""
    reached = asyncio.Event()

    async def script(client: Client) -> None:
        asyncio.get_running_loop().call_soon(reached.set)
        await stage(client)

    async with _model(script) as (model, state):
        asking = asyncio.create_task(_ask(model, []))
        async with asyncio.timeout(30):
            await reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await state.until_ended(1)


async def test_whoever_waits_in_line_leaves_it() -> None:
    """A call that waits for a connection is cancelled without ever having one."""
    async with _model(hang, connections=1) as (model, state):
        first, second = (asyncio.create_task(_ask(model, [])) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert state.connections <= 1
