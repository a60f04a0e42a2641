"""Answers in the shape of OpenAI's chat completions, whole or as chunks of a stream."""

from __future__ import annotations

import functools
import re
import secrets
import time
from collections.abc import Sequence

import msgspec

from ragserve.openai import (
    Annotation,
    AnswerMessage,
    ChatChoice,
    ChatCompletion,
    UrlCitation,
)
from ragserve.pipeline import Sources
from ragserve.schema import Citation, ErrorResponse, QueryResponse
from ragserve.store.collections import NAME_CHARACTERS

_MARK = re.compile(r"\[(\d{1,5})\]")
DONE = b"data: [DONE]\n\n"
MODELS = 100
"""Of so many the beginning of a frame is remembered."""
LONGEST_MODEL = len("rag:") + NAME_CHARACTERS
"""Longer names are no collection's; nobody fills the memory with them."""


def completion(answer: QueryResponse, model: str) -> ChatCompletion:
    """Return ``answer`` as the completion of ``model``."""
    message = AnswerMessage(answer.answer, annotate(answer.answer, answer.citations))
    return ChatCompletion(
        id=new_id(),
        created=int(time.time()),
        model=model,
        choices=[ChatChoice(message)],
        usage=answer.usage,
        citations=answer.citations,
        degraded=answer.degraded,
    )


def annotate(text: str, citations: Sequence[Citation]) -> list[Annotation]:
    """Return an annotation for each mark in ``text``; a source without URL is named by its id."""
    by_index = {citation.index: citation for citation in citations}
    found = []
    for mark in _MARK.finditer(text):
        citation = by_index.get(int(mark[1]))
        if citation is not None:
            url = citation.url or citation.document_id
            found.append(Annotation(UrlCitation(url, citation.title, mark.start(), mark.end())))
    return found


def new_id() -> str:
    """Return the id of a completion."""
    return f"chatcmpl-{secrets.token_hex(12)}"


class Chunks:
    """The frames of one streamed completion: sources, words, an end, usage if asked for.

    What repeats in every frame is encoded once. What is the stream's own comes last: all before a
    word is one object for all streams, which stays in the processor's cache.
    """

    def __init__(self, model: str, *, usage: bool) -> None:
        own = msgspec.json.encode({"id": new_id(), "created": int(time.time())})
        known = len(model) <= LONGEST_MODEL
        self._head, before = _shared_before(model) if known else _before(model)
        self._end = b"," + own[1:] + b"\n\n"
        self._usage = usage
        # With include_usage every chunk has the field, null until the last (API reference).
        self._tail = (b',"usage":null' if usage else b"") + self._end
        self.around = (before, b'"},"logprobs":null,"finish_reason":null}]' + self._tail)
        self._begun = False

    def sources(self, sources: Sources) -> bytes:
        """Return the frame of what an answer is made from."""
        citations = b',"citations":' + msgspec.json.encode(sources.citations)
        delta = b"{}" if self._begun else b'{"role":"assistant","content":""}'
        self._begun = True
        return self._frame(delta, b"null", citations)

    def end(self, answer: QueryResponse) -> bytes:
        """Return the frames that end an answer; ``citations`` are now those it cites."""
        extra = b',"citations":' + msgspec.json.encode(answer.citations)
        if answer.degraded:
            extra += b',"degraded":' + msgspec.json.encode(answer.degraded)
        marks = annotate(answer.answer, answer.citations)
        delta = b'{"annotations":' + msgspec.json.encode(marks) + b"}" if marks else b"{}"
        frames = self._frame(delta, b'"stop"', extra)
        if self._usage:
            usage = msgspec.json.encode(answer.usage)
            frames += self._head + b',"choices":[],"usage":' + usage + self._end
        return frames + DONE

    def _frame(self, delta: bytes, finish_reason: bytes, extra: bytes) -> bytes:
        choice = b'{"index":0,"delta":%b,"logprobs":null,"finish_reason":%b}' % (
            delta,
            finish_reason,
        )
        return self._head + b',"choices":[' + choice + b"]" + extra + self._tail

    @staticmethod
    def failure(error: ErrorResponse) -> bytes:
        """Return the frame that tells what went wrong, as OpenAI's SDKs expect it."""
        return b"data: " + msgspec.json.encode(error) + b"\n\n"


def _before(model: str) -> tuple[bytes, bytes]:
    """Return what each frame begins with, and all that stands before a word."""
    same = {"object": "chat.completion.chunk", "model": model}
    head = b"data: " + msgspec.json.encode(same)[:-1]
    return head, head + b',"choices":[{"index":0,"delta":{"content":"'


_shared_before = functools.lru_cache(maxsize=MODELS)(_before)
