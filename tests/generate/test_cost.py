"""What a completion that is passed on as it is has cost, however it is cut and whatever it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ragserve.generate import RelayedCost
from ragserve.metrics import LLM_TOKENS
from ragserve.schema import Usage
from tests.generate.test_dictation import USAGE, piece

REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}).encode()
PROMPT = len(REQUEST) // 4
WORD = piece("word", id="chatcmpl-1234", object="chat.completion.chunk", model="m-1")


def events(*data: str, end: str = "\n\n") -> bytes:
    return "".join(f"data: {one}{end}" for one in data).encode()


def cost(stream: bytes, cut: int = 0) -> Usage:
    """Return the cost of a stream that comes in pieces of ``cut`` bytes, or all at once."""
    heard = RelayedCost(REQUEST)
    for start in range(0, len(stream), cut or len(stream) or 1):
        heard.hear(stream[start : start + cut] if cut else stream)
    return heard.settle()


def usage(**more: Any) -> str:
    return json.dumps({"choices": [], "usage": USAGE, **more})


TELLING = {
    "at the end": events(WORD, usage(), "[DONE]"),
    "without [DONE]": events(WORD, usage()),
    "of a long answer": events(*[WORD] * 200, usage(), "[DONE]"),
    "with all chunks null but the last": events(piece("a", usage=None), usage(), "[DONE]"),
    "growing with each chunk": events(
        piece("a", usage={"prompt_tokens": 90, "completion_tokens": 1}), usage(), "[DONE]"
    ),
    "with the finish": events(WORD, piece(finish="stop", usage=USAGE), "[DONE]"),
    "with lines ended by CRLF": events(WORD, usage(), "[DONE]", end="\r\n\r\n"),
    "with much beside it": events(WORD, usage(timings="x" * 1000), "[DONE]"),
}


@pytest.mark.parametrize("cut", [0, 1, 7, 100, 1000])
@pytest.mark.parametrize("stream", TELLING.values(), ids=TELLING.keys())
def test_a_stream_that_tells_its_usage(stream: bytes, cut: int) -> None:
    """Told is told: once, as it says in the end, across any split of its bytes."""
    before = LLM_TOKENS.labels("completion")._value.get()
    assert cost(stream, cut) == Usage(90, 9, 99)
    assert LLM_TOKENS.labels("completion")._value.get() - before == 9


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_stream_that_does_not_tell(cut: int) -> None:
    """An event counts as a token; one with many words as many; four bytes of the prompt as one."""
    assert cost(events(*[WORD] * 50), cut) == Usage(PROMPT, 50, PROMPT + 50)
    long = piece("word " * 400, id="chatcmpl-1234", object="chat.completion.chunk", model="m-1")
    told = cost(events(WORD, long, long, WORD), cut).completion_tokens
    assert told == pytest.approx(2 * 2000 / 4, rel=0.01)
    assert cost(events("no JSON", "[DONE]"), cut).completion_tokens == 2


def test_what_never_began_costs_nothing() -> None:
    """A refusal, or nothing at all, is no answer."""
    assert cost(b"") == Usage()


def test_pictures_are_not_paid_by_the_byte() -> None:
    """What a message carries inline is no prompt of so many words."""
    url = "data:image/png;base64," + "A" * 100_000
    part = {"type": "image_url", "image_url": {"url": url}}
    heard = RelayedCost(json.dumps({"messages": [{"role": "user", "content": [part]}]}).encode())
    heard.hear(events(WORD))
    assert heard.settle().prompt_tokens < 50


@pytest.mark.parametrize(
    ("reply", "completion"),
    [
        ({"choices": [{"message": {"content": "x" * 40}}], "usage": USAGE}, 9),
        ({"choices": [{"message": {"content": "x" * 40}}]}, 10),
        ({"choices": [{"message": {"content": None, "tool_calls": []}}]}, 0),
        ({"answer": 42}, 0),
    ],
)
def test_a_whole_reply(reply: dict[str, Any], completion: int) -> None:
    """Its usage, or an estimate from its text; what has no text has its prompt's cost."""
    whole = RelayedCost(REQUEST)
    whole.take(json.dumps(reply).encode())
    assert whole.settle().completion_tokens == completion
