"""Extracted answers: the closest sentences, each once, in the order of their passages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from ragserve.config import Language
from ragserve.embed.hashing import HashingModel
from ragserve.generate.answer import NO_ANSWER, Answer
from ragserve.generate.extract import (
    SENTENCE_CHARACTERS,
    SENTENCES_COMPARED,
    choose,
    extract_answer,
    split_passages,
)
from ragserve.schema import SearchResult
from tests.generate.samples import passages

Vectors = npt.NDArray[np.float32]


def _split(*texts: str, language: str = "en") -> list[tuple[str, int]]:
    return [(s.text, s.passage) for s in split_passages(passages(*texts), language)]


def _choose(
    cosines: Sequence[float], limit: int, *, same: tuple[int, int] | None = None
) -> list[int]:
    vectors = np.eye(len(cosines), dtype=np.float32)
    if same:
        vectors[same[1]] = vectors[same[0]]
    return choose(np.array(cosines, np.float32), vectors, limit)


def test_the_closest_come_first() -> None:
    """Sentences are chosen by closeness, as many as the limit allows."""
    assert _choose([0.8, 0.9, 0.85, 0.84], 3) == [1, 2, 3]
    assert _choose([0.8, 0.9, 0.85, 0.84], 1) == [1]


def test_what_is_much_less_close_is_not_said() -> None:
    """A sentence below 85 % of the best one's closeness does not join it."""
    assert _choose([0.8, 0.67, 0.69], 3) == [0, 2]


def test_what_repeats_is_not_said() -> None:
    """Of two sentences that say the same only the closer one is said."""
    assert _choose([0.9, 0.89, 0.88], 3, same=(0, 1)) == [0, 2]


def test_the_best_one_is_said_however_far() -> None:
    """One sentence is always chosen, even if none is close."""
    assert _choose([-0.5, -0.6], 3) == [0]
    assert _choose([0.0], 3) == [0]


def test_passages_are_cut_into_sentences() -> None:
    """Each sentence keeps its passage; abbreviations do not end one."""
    assert _split("Dr. Smith came home. He was very tired.", "The cat slept all day.") == [
        ("Dr. Smith came home.", 0),
        ("He was very tired.", 0),
        ("The cat slept all day.", 1),
    ]


@pytest.mark.parametrize("bullet", ["- ", "* ", "• ", "## ", "1. ", "12) ", "> ", "  - "])
def test_bullets_are_no_part_of_a_sentence(bullet: str) -> None:
    """What an author puts before a list's item is not quoted."""
    assert _split(f"{bullet}Close the main valve first") == [("Close the main valve first", 0)]


def test_fragments_and_repetitions_are_dropped() -> None:
    """Lines of one or two words answer nothing; a sentence of two passages counts for the first."""
    assert _split(
        "Contents\nSee above.\n\nPage 7\nIt works   very well.", "It works very well."
    ) == [("It works very well.", 0)]


def test_scripts_without_spaces_have_sentences() -> None:
    """Chinese and Japanese sentences end at their own full stop, and are no fragments."""
    assert _split("水在一百度时沸腾。它在零度时结冰。", language="none") == [
        ("水在一百度时沸腾。", 0),
        ("它在零度时结冰。", 0),
    ]
    assert _split("東京。") == []


def test_a_sentence_without_an_end_is_cut() -> None:
    """A text without full stops is quoted up to a readable length."""
    ((text, _),) = _split("word " * 1000)
    assert len(text) == SENTENCE_CHARACTERS


class _Recorder:
    """Embeds by words and remembers what it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        self.texts += texts
        return HashingModel().encode(texts)


async def _extract(
    question: str,
    found: list[SearchResult],
    embed: _Recorder,
    *,
    floor: float = 0.1,
    language: Language = "en",
    limit: int = 3,
) -> Answer:
    (vector,) = HashingModel().encode([question])
    return await extract_answer(
        question, vector, found, embed, language=language, limit=limit, min_similarity=floor
    )


async def test_sentences_are_said_in_the_order_of_their_passages() -> None:
    """The answer reads from the best passage on; each sentence has the mark of its passage."""
    found = passages(
        "Nothing of interest here.",
        "The red pump stops now. Bananas are yellow fruit.",
        "The red pump stops slowly.",
    )
    answer = await _extract("red pump stops", found, _Recorder())
    assert answer.text == "The red pump stops now. [2] The red pump stops slowly. [3]"
    assert [(c.index, c.document_id) for c in answer.citations] == [(2, "doc-2"), (3, "doc-3")]
    assert answer.model == "extractive"
    assert answer.usage.total_tokens == 0


async def test_two_sentences_of_a_passage_share_its_mark() -> None:
    """A passage is cited once, however many sentences it gave."""
    found = passages("The red pump stops now. The red pump starts later.")
    answer = await _extract("the red pump", found, _Recorder())
    assert answer.text == "The red pump stops now. [1] The red pump starts later. [1]"
    assert [citation.chunk_id for citation in answer.citations] == ["1"]


async def test_a_question_is_not_said_but_what_follows_it() -> None:
    """Who asks what a passage asks gets the answer there, not the question again."""
    asked = "Where do I hand in lost property?"
    found = passages(
        f"question: {asked}\nanswer: At the ticket hall, with Ansel. Bananas are yellow fruit.",
        "Where are bananas grown?",
        "The ship leaves at noon. Nobody waits for it.",
    )
    embed = _Recorder()
    answer = await _extract(asked, found, embed)
    assert answer.text == "answer: At the ticket hall, with Ansel. [1]"
    assert embed.texts == [
        f"question: {asked} answer: At the ticket hall, with Ansel.",
        "Bananas are yellow fruit.",
        "The ship leaves at noon.",
        "Nobody waits for it.",
    ]


async def test_where_all_is_questions_one_is_said() -> None:
    """Nothing better is there."""
    answer = await _extract("red pump", passages("Is the red pump on?"), _Recorder())
    assert answer.text == "Is the red pump on? [1]"


async def test_nothing_close_is_no_answer() -> None:
    """Below the floor the answer says that the documents have none, and cites nothing."""
    answer = await _extract("red pump", passages("Bananas are yellow fruit."), _Recorder())
    assert (answer.text, answer.citations) == (NO_ANSWER, [])


async def test_no_sentences_are_no_answer() -> None:
    """Without passages, or with fragments only, nothing is embedded."""
    embed = _Recorder()
    assert (await _extract("red pump", [], embed)).text == NO_ANSWER
    assert (await _extract("red pump", passages("Red", "Pump"), embed)).text == NO_ANSWER
    assert embed.texts == []


async def test_of_many_sentences_those_with_the_questions_words_are_compared() -> None:
    """The model sees a bounded number of sentences, the promising ones among them, in order."""
    fillers = [f"Filler sentence number {n}." for n in range(100)]
    embed = _Recorder()
    answer = await _extract("red pump", passages(*fillers, "The Red pump stops."), embed)
    assert answer.text == "The Red pump stops. [101]"
    assert embed.texts == [*fillers[: SENTENCES_COMPARED - 1], "The Red pump stops."]


@pytest.mark.parametrize(
    ("language", "question", "filler", "sentence"),
    [
        ("en", "When are pumps stopped?", "When are we to see the number {}?", "A pump stops."),
        ("none", "水泵何时停止", "这里是第{}句无关的话。", "红色水泵在夜里停止。"),
    ],
)
async def test_words_are_those_of_the_search(
    language: Language, question: str, filler: str, sentence: str
) -> None:
    """Forms of a word are one, words that mean nothing do not count, and Chinese has words."""
    text = " ".join(filler.replace("?", ".").format(n) for n in range(100))
    embed = _Recorder()
    await _extract(question, passages(text, sentence), embed, language=language)
    assert embed.texts[-1] == sentence


async def test_a_long_answer_has_more_to_choose_from() -> None:
    """The longest answer that may be configured can be given."""
    fillers = [f"Filler sentence number {n}." for n in range(100)]
    embed = _Recorder()
    await _extract("filler sentence", passages(*fillers), embed, limit=20)
    assert embed.texts == fillers[:40]
