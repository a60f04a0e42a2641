"""Answers in OpenAI's shape."""

from __future__ import annotations

import json

from ragserve.handlers.completion import Chunks, annotate, completion
from ragserve.pipeline import Sources
from ragserve.pipeline.events import words
from ragserve.schema import Citation, QueryResponse, Usage
from ragserve.store.collections import NAME_CHARACTERS

GUIDE = Citation(1, "guide", "1", "Office guide", 0.9, "Lunch is at noon.")
MENU = Citation(3, "menu", "2", "Menu", 0.8, "Fish.", url="https://a.example/menu")
ANSWER = QueryResponse(
    "ans-1", "At noon [1], fish [3][1]. See [7].", [GUIDE, MENU], "m", Usage(1, 2, 3), "miss"
)


def frames(data: bytes) -> list[object]:
    parts = data.decode().removesuffix("\n\n").split("\n\n")
    return [
        part if part == "data: [DONE]" else json.loads(part.removeprefix("data: "))
        for part in parts
    ]


def test_marks_are_annotated_where_they_stand() -> None:
    """Each known mark has an annotation with its place; unknown numbers have none."""
    found = [annotation.url_citation for annotation in annotate(ANSWER.answer, ANSWER.citations)]
    assert [ANSWER.answer[one.start_index : one.end_index] for one in found] == [
        "[1]",
        "[3]",
        "[1]",
    ]
    assert [one.url for one in found] == ["guide", "https://a.example/menu", "guide"]


def test_a_completion_carries_everything() -> None:
    """Text, annotations, usage and citations stand where OpenAI's clients look for them."""
    made = completion(ANSWER, "rag:handbook")
    assert made.model == "rag:handbook"
    assert made.choices[0].message.content == ANSWER.answer
    assert (made.usage, made.citations) == (ANSWER.usage, ANSWER.citations)


def test_a_stream_is_chunks() -> None:
    """The role comes first with the sources, then words, an end and DONE; ids are the same."""
    chunks = Chunks("rag", usage=False)
    first, *again = frames(chunks.sources(Sources([GUIDE])) + chunks.sources(Sources([GUIDE])))
    (word,) = frames(words('noon "sharp"').join(chunks.around))
    end, done = frames(chunks.end(ANSWER))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert again[0]["choices"][0]["delta"] == {}
    assert word["choices"][0]["delta"] == {"content": 'noon "sharp"'}
    assert end["choices"][0]["finish_reason"] == "stop"
    assert [citation["index"] for citation in end["citations"]] == [1, 3]
    assert done == "data: [DONE]"
    assert len({frame["id"] for frame in (first, word, end)}) == 1
    assert "usage" not in word


def test_all_before_a_word_is_one_object_for_all_streams() -> None:
    """A name that can be no collection's is not remembered, and is said all the same."""
    longest = "rag:" + "x" * NAME_CHARACTERS
    for model in ("rag", longest):
        one, other = (Chunks(model, usage=False).around for _ in range(2))
        assert one[0] is other[0]
        assert one[1] != other[1]
    one, other = (Chunks(longest + "x", usage=False).around for _ in range(2))
    assert one[0] == other[0]
    assert one[0] is not other[0]


def test_usage_is_told_last_if_asked_for() -> None:
    """With include_usage every chunk has the field, and one without choices tells it."""
    chunks = Chunks("rag", usage=True)
    (word,) = frames(words("noon").join(chunks.around))
    _, usage, _ = frames(chunks.end(ANSWER))
    assert word["usage"] is None
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
