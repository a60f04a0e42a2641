"""From passages to an answer: sentences of theirs, or a language model's words, with citations."""

from ragserve.generate.answer import NO_ANSWER, Answer
from ragserve.generate.extract import extract_answer
from ragserve.generate.model import LanguageModel

__all__ = ["NO_ANSWER", "Answer", "LanguageModel", "extract_answer"]
