"""Answers without a language model: the sentences that come closest to the question.

Sentences of the passages are embedded together and compared with the question. The closest one
always answers; others join if they are nearly as close and do not repeat it. They are given in
the order of their passages, each with the number of its passage, counted from 1.

A question in a passage is not said if there is anything else: it comes closest of all, and answers
nothing. What follows it most likely does, and is compared together with it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import sentencex

from ragserve.config import Language
from ragserve.generate.answer import NO_ANSWER, Answer, cite
from ragserve.index import analyzer_of
from ragserve.schema import SearchResult

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Awaitable[Vectors]]

MODEL = "extractive"
SENTENCES_COMPARED = 16
"""As many as find what all would find (cranfield and msmarco, five passages a question: the same
answers of up to three sentences to all 275; with twelve 99 %, with eight 91 %)."""
COMPARED_FOR_EACH = 2
"""A longer answer has so many sentences to choose from for each of its own."""
SENTENCE_WORDS = 3
SENTENCE_CHARACTERS = 600
NEARLY = 0.85
"""A further sentence has at least this share of the best one's similarity."""
REPEATS = 0.92
"""Two sentences with this cosine say the same."""

_WORD = re.compile(r"\w+")
_CLOSING = "\"'”’»)]）】」』*_`"
_ENDS = frozenset(".!…。！｡")
_ASKS = frozenset("?？")
_TELLING = re.compile(r"\d|[:;|=：；]")
_BULLET = re.compile(r"^\s*(?:[-*+•#>|]+|\d+[.)])\s+")


class Sentence(msgspec.Struct, frozen=True):
    """A sentence, the place of its passage in the list, and the question there that it follows."""

    text: str
    passage: int
    asked: str = ""

    @property
    def compared(self) -> str:
        """Return what is compared with the question."""
        return f"{self.asked} {self.text}" if self.asked else self.text


async def extract_answer(
    question: str,
    vector: Vectors,
    passages: Sequence[SearchResult],
    embed: Embed,
    *,
    language: Language,
    limit: int,
    min_similarity: float,
) -> Answer:
    """Return up to ``limit`` sentences that answer the question, or say that none does.

    ``vector`` is the question's unit vector; ``embed`` maps texts to unit vectors.
    """
    compared = max(SENTENCES_COMPARED, COMPARED_FOR_EACH * limit)
    saying = _saying(split_passages(passages, language))
    sentences = _worth_comparing(question, saying, analyzer_of(language).terms, compared)
    if not sentences:
        return Answer(NO_ANSWER, [], MODEL)
    vectors = await embed([sentence.compared for sentence in sentences])
    similarity = vectors @ vector
    if similarity.max() < min_similarity:
        return Answer(NO_ANSWER, [], MODEL)
    chosen = sorted(choose(similarity, vectors, limit))
    said = [sentences[number] for number in chosen]
    text = " ".join(f"{sentence.text} [{sentence.passage + 1}]" for sentence in said)
    cited = sorted({sentence.passage for sentence in said})
    return Answer(text, [cite(number + 1, passages[number]) for number in cited], MODEL)


def choose(similarity: npt.NDArray[np.float32], vectors: Vectors, limit: int) -> list[int]:
    """Return the numbers of the sentences to say, closest first.

    ``similarity`` has shape (sentences,), ``vectors`` (sentences, dimensions).
    """
    order = np.argsort(-similarity, kind="stable")
    floor = float(similarity[order[0]]) * NEARLY
    chosen: list[int] = []
    for number in map(int, order):
        if len(chosen) == limit or (chosen and similarity[number] < floor):
            break
        if not chosen or float(np.max(vectors[chosen] @ vectors[number])) < REPEATS:
            chosen.append(number)
    return chosen


def split_passages(passages: Sequence[SearchResult], language: str) -> list[Sentence]:
    """Cut passages into sentences, without bullets, fragments and repetitions."""
    seen: set[str] = set()
    found = []
    for number, passage in enumerate(passages):
        for line in passage.text.splitlines():
            for piece in sentencex.segment(language if language != "none" else "en", line):
                text = " ".join(_BULLET.sub("", piece).split())
                if _is_sentence(text) and text not in seen:
                    seen.add(text)
                    found.append(Sentence(text[:SENTENCE_CHARACTERS], number))
    return found


def _is_sentence(text: str) -> bool:
    # Scripts without spaces have few "words" and many letters.
    return len(_WORD.findall(text)) >= SENTENCE_WORDS or (len(text) >= 8 and not text.isascii())


def _saying(sentences: list[Sentence]) -> list[Sentence]:
    """Drop what says nothing, if anything is left then: headings, and questions.

    Headings come closest to most questions and answer none. A row of a table says something.
    """
    saying: list[Sentence] = []
    asked: Sentence | None = None
    for sentence in sentences:
        end = sentence.text.rstrip(_CLOSING)[-1:]
        if end in _ASKS:
            asked = sentence
        elif end in _ENDS or _TELLING.search(sentence.text):
            if asked is not None and asked.passage == sentence.passage:
                sentence = msgspec.structs.replace(sentence, asked=asked.text)
            asked = None
            saying.append(sentence)
    return saying or sentences


def _worth_comparing(
    question: str, sentences: list[Sentence], terms: Callable[[str], Sequence[str]], most: int
) -> list[Sentence]:
    """Keep the ``most`` promising: those sharing terms with the question, then the first ones."""
    if len(sentences) <= most:
        return sentences
    wanted = set(terms(question))

    def shared(number: int) -> int:
        return -len(wanted.intersection(terms(sentences[number].compared)))

    best = sorted(range(len(sentences)), key=shared)[:most]
    return [sentences[number] for number in sorted(best)]
