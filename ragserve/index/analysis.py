"""Text to terms, the same for documents and questions.

Western scripts: split at what is no letter or digit, lower case, accents folded, stop words of
the language dropped, stemmed (Snowball). Chinese, Japanese and Korean write without spaces that
a splitter could use, so runs of their letters become overlapping pairs, the usual substitute for
a dictionary; documents keep the single letters, too, so that a question of one letter finds them.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import tantivy

from ragserve.config import Language

LANGUAGES: dict[Language, str] = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "none": "",
}
"""Languages a collection may have: ISO 639-1 code to the stemmer's name."""

WITHOUT_STOP_WORDS = frozenset({"arabic", "greek", "romanian", "tamil", "turkish"})
"""The library has no list for them."""
TERM_BYTES = 256
"""Longer words are encoded data, not words."""
# Han with its extensions, kana, hangul syllables; after NFKC there are no half-width forms.
_CJK = re.compile(
    "[\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]+"
)


class Analyzer:
    """The analysis of one language."""

    def __init__(self, language: Language) -> None:
        builder = (
            tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
            .filter(tantivy.Filter.remove_long(TERM_BYTES))
            .filter(tantivy.Filter.lowercase())
        )
        if name := LANGUAGES[language]:
            # Before folding: stop words and stems know their accents.
            if name not in WITHOUT_STOP_WORDS:
                builder = builder.filter(tantivy.Filter.stopword(name))
            builder = builder.filter(tantivy.Filter.stemmer(name))
        self.tokenizer = builder.filter(tantivy.Filter.ascii_fold()).build()

    def prepare(self, text: str) -> str:
        """Return a document's text as the index tokenizes it."""
        text = _normalise(text)
        return text if text.isascii() else _CJK.sub(_pairs_and_letters, text)

    def terms(self, text: str) -> list[str]:
        """Return a question's distinct terms in their order."""
        text = _normalise(text)
        if not text.isascii():
            text = _CJK.sub(_pairs, text)
        return list(dict.fromkeys(self.tokenizer.analyze(text)))


@lru_cache(len(LANGUAGES))
def analyzer_of(language: Language) -> Analyzer:
    """Return the analyzer of a language, made once."""
    return Analyzer(language)


def _normalise(text: str) -> str:
    if text.isascii():
        return text
    # The Turkish capital İ in lower case is an i with a separate dot that no word has.
    return unicodedata.normalize("NFKC", text).replace("İ", "i")


def _pairs(match: re.Match[str]) -> str:
    run = match[0]
    if len(run) == 1:
        return f" {run} "
    return " " + " ".join(run[i : i + 2] for i in range(len(run) - 1)) + " "


def _pairs_and_letters(match: re.Match[str]) -> str:
    run = match[0]
    return _pairs(match) if len(run) == 1 else _pairs(match) + " ".join(run) + " "
