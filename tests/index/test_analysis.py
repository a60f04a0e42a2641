"""Text to terms: what a question and a document must have in common to meet."""

from __future__ import annotations

import pytest

from ragserve.index import analyzer_of


def _document_terms(text: str, language: str = "en") -> set[str]:
    analyzer = analyzer_of(language)
    return set(analyzer.tokenizer.analyze(analyzer.prepare(text)))


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "The runners are running", ["runner", "run"]),
        ("en", "Databases, a database; DATABASE!", ["databas"]),
        ("de", "Die Häuser und das Haus", ["haus"]),
        ("fr", "les chevaux de la cheval", ["cheval"]),
        ("ru", "книги и книга", ["книг"]),
        ("none", "The runners were running", ["the", "runners", "were", "running"]),
    ],
)
def test_words_become_stems_without_stop_words(language: str, text: str, terms: list[str]) -> None:
    """Inflections of a word are one term, once; words that say nothing are none."""
    assert analyzer_of(language).terms(text) == terms


def test_accents_do_not_matter() -> None:
    """A word is found with and without its accents, composed or not."""
    assert analyzer_of("en").terms("café") == ["cafe"]
    assert analyzer_of("en").terms("cafe\u0301") == ["cafe"]
    assert _document_terms("CAFÉ") == {"cafe"}


def test_stop_words_keep_their_accents() -> None:
    """An accent that makes another word of a stop word keeps that word."""
    assert analyzer_of("fr").terms("sûr") == ["sur"]
    assert analyzer_of("fr").terms("sur") == []


def test_width_does_not_matter() -> None:
    """Full-width letters and half-width kana are the usual ones."""
    assert analyzer_of("en").terms("ＡＢＣ") == ["abc"]  # noqa: RUF001 - what is tested
    assert analyzer_of("none").terms("ｶﾀ") == analyzer_of("none").terms("カタ") == ["カタ"]


@pytest.mark.parametrize("language", ["en", "none"])
def test_cjk_questions_become_pairs(language: str) -> None:
    """A run without spaces becomes overlapping pairs, beside western words."""
    assert analyzer_of(language).terms("東京都 guide") == (
        ["東京", "京都", "guid"] if language == "en" else ["東京", "京都", "guide"]
    )
    assert analyzer_of(language).terms("한국어") == ["한국", "국어"]


def test_cjk_documents_keep_single_letters() -> None:
    """A document has the pairs and the letters, so that a question of one letter finds it."""
    assert _document_terms("東京都") == {"東京", "京都", "東", "京", "都"}
    assert analyzer_of("none").terms("京") == ["京"]
    assert _document_terms("京") == {"京"}


def test_letters_and_cjk_side_by_side_are_apart() -> None:
    """A western word that touches a CJK run is a term of its own."""
    assert analyzer_of("none").terms("Linux入門") == ["linux", "入門"]
    assert {"linux", "入門"} <= _document_terms("Linux入門", "none")


def test_punctuation_is_no_term() -> None:
    """A question of signs only has no terms."""
    assert analyzer_of("en").terms('?! "" -- :: 。、') == []


def test_an_endless_word_is_no_term() -> None:
    """What is too long to be a word, such as base64, does not fill the index."""
    assert analyzer_of("none").terms(f"{'x' * 5000} word") == ["word"]


def test_turkish_capitals_meet_their_small_letters() -> None:
    """A Turkish word is found whichever case it is written in."""
    terms = analyzer_of("tr").terms
    assert terms("İstanbul") == terms("istanbul")
