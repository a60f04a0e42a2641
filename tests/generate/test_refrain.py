"""Words taken from between what repeats: the same as from events that are decoded, every time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from ragserve.flow.chunked import framed
from ragserve.generate.refrain import LESSONS, Refrain
from ragserve.generate.reply import Dictation
from ragserve.upstream import CallFailed
from ragserve.upstream.sse import EventParser

WORDS = [
    "The", " ferry", " leaves", " at", " 9", ".", "30", " from", " pier", " [2", "]", ".", "\n",
    "\n", "•", " Grün", "die", "船", "は", "\u3000", "9時", " \"quoted\"", "\\", "\t", " [1, 3]",
    " e\u0301", "[", "7]", " ", " a ", "b", "]", "\u2028", "\x7f", "😀", "content", "null", "}",
]  # fmt: skip


def _event(word: str, number: int = 0, **choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1750000000 + number // 10,
        "model": "content",
        "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None, **choice}],
    }


def _spaced(word: str, number: int) -> bytes:
    return json.dumps(_event(word, number)).encode()


def _escaped(word: str, number: int) -> bytes:
    return json.dumps(_event(word, number), separators=(",", ":")).encode()


def _raw(word: str, number: int) -> bytes:
    return json.dumps(_event(word, number), separators=(",", ":"), ensure_ascii=False).encode()


def _obfuscated(word: str, number: int) -> bytes:
    return json.dumps({**_event(word, number), "obfuscation": "x" * (number % 7)}).encode()


def _counted(word: str, number: int) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": number, "total_tokens": 9 + number}
    return json.dumps({**_event(word), "usage": usage}).encode()


def _with_logprobs(word: str, number: int) -> bytes:
    told = {"content": [{"token": word, "logprob": -0.5, "bytes": list(word.encode())}]}
    return json.dumps(_event(word, number, logprobs=told)).encode()


def _dictated(pieces: list[bytes], *, skim: bool) -> tuple[list[str], Dictation, int]:
    """Return what is said of a stream, who heard it, and how many events were skimmed."""
    said: list[str] = []
    dictation = Dictation(3, lambda words: said.append(json.loads(b'"%b"' % words)))
    events = EventParser()
    skimmed = 0
    for piece in pieces:
        if skim and events.between and dictation.skim(framed(piece)):
            skimmed += 1
        elif found := events.feed(piece):
            dictation.hear(found)
    dictation.end()
    return said, dictation, skimmed


@pytest.mark.parametrize(
    ("shape", "least"),
    [
        (_spaced, 0.15),
        (_escaped, 0.15),
        (_raw, 0.2),
        (_obfuscated, 0.0),
        (_counted, 0.0),
        (_with_logprobs, 0.0),
    ],
)
def test_skimmed_words_are_those_that_decoding_finds(
    shape: Callable[[str, int], bytes], least: float
) -> None:
    """Whatever a server's events look like, and whatever marks and scripts are in its words."""
    rng = random.Random(3)
    for _ in range(30):
        words = [rng.choice(WORDS) for _ in range(200)]
        pieces = [b"data: %b\n\n" % shape(word, number) for number, word in enumerate(words)]
        stop = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        pieces.append(b"data: %b\n\n" % json.dumps(stop).encode())
        said, skimming, skimmed = _dictated(pieces, skim=True)
        as_decoded, decoding, _ = _dictated(pieces, skim=False)
        assert said == as_decoded
        assert skimming.text == decoding.text == "".join(said)
        assert skimming.marks.indexes == decoding.marks.indexes
        assert (skimming.complete, skimming.model, skimming.usage) == (
            (decoding.complete, decoding.model, decoding.usage)
        )
        assert skimmed >= least * len(words), skimmed


def _content(data: bytes) -> str | None:
    try:
        said = json.loads(data)
    except ValueError:
        return None
    content = said.get("content")
    return content if isinstance(content, str) and said.get("also") is None else None


LEARNT = b'{"content":"word","also":null}'


@pytest.mark.parametrize(
    "piece",
    [
        b'data: {"content":"","also":null}\n\n',
        b'data: {"content":"a","also":null}\n',
        b'data: {"content":"a","also":null}\n\ndata: {"content":"b","also":null}\n\n',
        b'data: {"content":"a","also":"x","also":null}\n\n',
        b'data: {"content":"a\\n","also":null}\n\n',
        b'data: {"content":"a\nb","also":null}\n\n',
        b'data: {"content":"a\x00b","also":null}\n\n',
        b'data: {"content":"[","also":null}\n\n',
        b'data: {"content":null,"also":null}\n\n',
        b'data: {"content":"a","also":1}\n\n',
        b'data: {"content":","also":null}\n\n',
        b": comment\n\n",
        b"",
    ],
)
def test_only_a_word_in_its_place_is_one(piece: bytes) -> None:
    """What is no whole event, or says more than its word, is for who decodes."""
    refrain = Refrain(_content)
    refrain.learn(LEARNT)
    assert refrain.try_word(framed(b'data: {"content":" word","also":null}\n\n')) == b" word"
    assert not piece or refrain.try_word(framed(piece)) is None
    assert refrain.try_word(piece) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"content":"word","also":1}',
        b'{"other":"word","content":"\\u0077ord"}',
        b'{"also":null,"a":"b","content":":"}',
        b"nonsense",
        b'{"content":""}',
    ],
)
def test_nothing_is_learnt_from_events_that_say_more(data: bytes) -> None:
    """Nor where the word is not found, or found elsewhere."""
    refrain = Refrain(_content)
    refrain.learn(data)
    assert refrain.try_word(framed(b"data: %b\n\n" % data)) is None


def test_events_that_never_repeat_are_not_learnt_for_ever() -> None:
    """So many lessons of no use end it; one that was of use gives all of them back."""
    tried: list[bytes] = []

    def read(data: bytes) -> str | None:
        tried.append(data)
        return _content(data)

    refrain = Refrain(read)
    for number in range(3 * LESSONS):
        refrain.learn(b'{"content":"word","number":%d}' % number)
    assert len(tried) == 2 * LESSONS  # each is read, and tried
    chunk = framed(b'data: {"content":"x","number":%d}\n\n' % (LESSONS - 1))
    assert refrain.try_word(chunk) == b"x"
    refrain.learn(LEARNT)
    assert refrain.try_word(framed(b'data: {"content":"x","also":null}\n\n')) == b"x"


def test_invalid_utf8_is_found_in_skimmed_words_too() -> None:
    """A word that is none ends the answer, as it does where events are decoded."""
    good = b"data: %b\n\n" % _raw("word", 0)
    dictation = Dictation(1, lambda _: None)
    dictation.hear([good[6:-2]])
    assert dictation.skim(framed(good))
    bad = good.replace(b'"word"', b'"w\xffrd"')
    assert not dictation.skim(framed(bad))
    with pytest.raises(CallFailed, match="unusable event"):
        dictation.hear([bad[6:-2]])
