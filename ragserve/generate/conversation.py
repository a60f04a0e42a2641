"""Conversations: what was said before a question, and what the question means without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a client wants its answer generated; None leaves it to the configuration."""

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Conversation(msgspec.Struct, frozen=True):
    """What surrounds a question: earlier messages, and wishes for the answer."""

    history: tuple[Turn, ...] = ()
    options: Options = Options()

    @property
    def instructions(self) -> str:
        """Return what the client's system messages say."""
        return "\n\n".join(turn.content for turn in self.history if turn.role == "system")

    @property
    def turns(self) -> list[Turn]:
        """Return what user and assistant said, oldest first."""
        return [turn for turn in self.history if turn.role != "system"]


NO_CONVERSATION = Conversation()

_WORD = re.compile(r"\w+")
FEW_WORDS = 3
"""A question of no more words than this rarely says what it is about."""
CARRIED_WORDS = 40
"""Of an earlier question, so much belongs into a search at most."""
_REFERRING = frozenset(
    "it its they them their theirs this that these those he him his she her hers one ones "
    "there then same other others former latter above mentioned such".split()
)
_CONTINUING = ("and ", "but ", "or ", "what about", "how about", "why", "also ", "so ")


def standalone(question: str, history: Sequence[Turn]) -> str:
    """Return the question with the words of the one before, if it leans on them.

    A cheap rule: a question that is short, refers ("it", "those") or continues ("and …") is
    searched for together with the user's question before it.
    """
    before = next((turn.content for turn in reversed(history) if turn.role == "user"), "")
    if not before or not leans_on_history(question):
        return question
    carried = " ".join(before.split()[:CARRIED_WORDS])
    return f"{carried} {question}"


def leans_on_history(question: str) -> bool:
    """Return whether a question probably cannot be understood alone."""
    text = question.strip().lower()
    words = _WORD.findall(text)
    return (
        len(words) <= FEW_WORDS or text.startswith(_CONTINUING) or not _REFERRING.isdisjoint(words)
    )
