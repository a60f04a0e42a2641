"""What makes two questions the same: the canonical key of an answer. Pure.

A key covers everything an answer depends on: whose collection at which version, what was asked,
how it is searched and by what recipe the answer is made. Whatever changes the answer changes the
key, so an outdated answer is not deleted but out of reach.
"""

from __future__ import annotations

import unicodedata
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from ragserve.schema import Mode

Kind = Literal["query", "search"]

KEY_BYTES = 20
"""160 bits: by chance, two of a trillion questions share a key once in 10^24 such caches."""


class Scope(msgspec.Struct, frozen=True, array_like=True):
    """All that decides an answer but the question's words.

    ``born`` tells a collection from one of the same number in another database; ``recipe`` is
    what ``recipe_of`` makes of the settings; ``surroundings`` is the conversation, if any.
    """

    kind: Kind
    tenant: str
    collection: int
    born: int
    version: int
    top_k: int
    mode: Mode
    filter: Any
    surroundings: Any
    recipe: bytes

    def partition(self) -> bytes:
        """Return what all questions of this scope have in common, in ``KEY_BYTES`` bytes."""
        return _digest(msgspec.json.encode(self, order="deterministic"))


def question_key(partition: bytes, question: str) -> bytes:
    """Return the key of a normalised question within a scope's partition."""
    return blake2b(question.encode(), key=partition, digest_size=KEY_BYTES).digest()


def recipe_of(*parts: object) -> bytes:
    """Return what stands for ``parts``: models, prompts and settings that shape every answer."""
    return _digest(msgspec.json.encode(parts, order="deterministic"))


def normalised(question: str, *, fold_case: bool) -> str:
    """Return the question without differences that do not change its meaning.

    Compatible characters become one (NFKC: full width, ligatures), white space becomes single
    spaces, and with ``fold_case`` upper and lower case are the same.
    """
    if question.isascii():
        text = question.casefold() if fold_case else question
    elif fold_case:
        # Folding may take characters apart, and normalising may bring new ones to fold: twice is
        # enough (toNFKC_Casefold, Unicode 3.13, D146 and following).
        text = _nfkc(_nfkc(unicodedata.normalize("NFD", question).casefold()).casefold())
    else:
        text = _nfkc(question)
    return " ".join(text.split())


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=KEY_BYTES).digest()
