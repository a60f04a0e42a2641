"""Which passages are about the question at all."""

from __future__ import annotations

import msgspec
import pytest

from ragserve.index import analyzer_of
from ragserve.retrieve.relevance import relevant
from ragserve.retrieve.search import Found
from ragserve.schema import SearchResult

TERMS = analyzer_of("en").terms


def _result(text: str, title: str = "") -> SearchResult:
    return SearchResult(text, "1", title, None, 1.0, text, msgspec.Raw(b"{}"), 0)


def _relevant(found: Found, question: str) -> list[str]:
    return [result.text for result in relevant(found, question, 0.4, TERMS)]


def test_passages_near_the_question_are_relevant() -> None:
    """A cosine of at least the floor is enough, below it is not; the order stays."""
    found = Found([_result("far"), _result("at"), _result("near")], [0.39, 0.4, 0.9])
    question = "a question of rather many unrelated words"
    assert _relevant(found, question) == ["at", "near"]


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        ("E1234", ["error E1234 means no paper"]),
        ("the E1234?", ["error E1234 means no paper"]),
        ("E1234 error", ["error E1234 means no paper"]),
        ("papers mean errors", ["error E1234 means no paper"]),
        ("E1234 toner", []),
        ("error E1234 paper now", []),
        ("?!", []),
    ],
)
def test_a_few_words_all_present_are_relevant(question: str, texts: list[str]) -> None:
    """Up to three words, all of them in the passage in some form, need no near vector."""
    found = Found([_result("error E1234 means no paper"), _result("other")], [0.1, 0.1])
    assert _relevant(found, question) == texts


def test_words_of_the_title_count() -> None:
    """A word of the question may be in the title."""
    found = Found([_result("hold the knob", title="Resetting the pump")], [0.0])
    assert _relevant(found, "reset knob") == ["hold the knob"]


def test_without_vectors_words_decide() -> None:
    """If no vector was compared, all that the words have found is relevant."""
    found = Found([_result("one"), _result("two")], None)
    assert _relevant(found, "a question of rather many unrelated words") == ["one", "two"]


def test_nothing_found_is_nothing_relevant() -> None:
    """No passages stay no passages."""
    assert _relevant(Found([], []), "E1234") == []
