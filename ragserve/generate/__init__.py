"""From passages to an answer: sentences of theirs, or a language model's words, with citations."""

from ragserve.generate.answer import NO_ANSWER, Answer, cite
from ragserve.generate.conversation import NO_CONVERSATION, Conversation, Options, Turn, standalone
from ragserve.generate.cost import RelayedCost
from ragserve.generate.extract import extract_answer
from ragserve.generate.model import LanguageModel
from ragserve.generate.prompt import PROMPT_VERSION

__all__ = [
    "NO_ANSWER",
    "NO_CONVERSATION",
    "PROMPT_VERSION",
    "Answer",
    "Conversation",
    "LanguageModel",
    "Options",
    "RelayedCost",
    "Turn",
    "cite",
    "extract_answer",
    "standalone",
]
