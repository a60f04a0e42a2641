"""What a chat model sends back: a whole completion, or chunks of one as they are written."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence

import msgspec

from ragserve.errors import UpstreamFailed
from ragserve.generate.marks import Marks
from ragserve.metrics import LLM_TOKENS, TEXT_GAP_SECONDS
from ragserve.schema import Usage
from ragserve.upstream import CallFailed


class _Text(msgspec.Struct, frozen=True, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    message: _Text = _Text()
    delta: _Text | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class Completion(msgspec.Struct):
    """A whole completion."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None

    @property
    def text(self) -> str:
        """Return the text; raise ``UpstreamFailed`` if there is none."""
        text = self.choices[0].message.content if self.choices else None
        return _not_empty(text)


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    model: str | None = None
    usage: _Usage | None = None
    error: object = None


_chunks = msgspec.json.Decoder(_Chunk)
_completions = msgspec.json.Decoder(Completion)


class Dictation:
    """A model's words on their way to ``say``, marks resolved; ``text`` is all that was said.

    ``begin`` is called before the first of them, and may raise ``CallFailed``.
    """

    def __init__(
        self, passages: int, say: Callable[[str], None], begin: Callable[[], None] = lambda: None
    ) -> None:
        self.marks = Marks(passages)
        self.model = ""
        self.usage = Usage()
        self.complete = False
        self.events = 0
        self._say = say
        self._begin = begin
        self._said = io.StringIO()
        self._pieces = 0
        self._heard_at = 0.0

    @property
    def text(self) -> str:
        """Return what has been said; raise ``UpstreamFailed`` if that is nothing."""
        return _not_empty(self._said.getvalue())

    def hear(self, events: Sequence[bytes]) -> None:
        """Take the data of events that arrived together; raise ``CallFailed``."""
        words = ""
        self.events += len(events)
        for data in events:
            try:
                chunk = _chunks.decode(data)
            except ValueError as error:  # not JSON, not this shape, not UTF-8
                raise CallFailed(f"unusable event: {error}", "garbage") from error
            if chunk.error is not None:
                shown = msgspec.json.encode(chunk.error).decode()[:300]
                raise CallFailed(f"an error in mid-stream: {shown}", "server")
            if chunk.model:
                self.model = chunk.model
            if chunk.usage is not None:
                self.usage = _usage(chunk.usage)
            for choice in chunk.choices[:1]:
                words += (choice.delta and choice.delta.content) or ""
                if choice.finish_reason is not None:
                    self.complete = choice.finish_reason == "stop"
        if words:
            self._time()
            self._tell(self.marks.feed(words))

    def take(self, reply: bytes) -> None:
        """Take a whole completion in place of events; raise ``UpstreamFailed``."""
        whole = decode_completion(reply)
        self.model, self.usage = whole.model or self.model, _usage(whole.usage)
        self.complete = whole.choices[0].finish_reason in (None, "stop") if whole.choices else False
        self._tell(self.marks.feed(whole.text))

    def end(self) -> None:
        """Say what was held back, and count the cost."""
        self._tell(self.marks.end())
        count(self.usage)

    def _tell(self, text: str) -> None:
        if text:
            if not self._pieces:
                self._begin()
            self._said.write(text)
            self._pieces += 1
            self._say(text)

    def _time(self) -> None:
        now = time.monotonic()
        if self._heard_at:
            TEXT_GAP_SECONDS.observe(now - self._heard_at)
        self._heard_at = now

    def __repr__(self) -> str:
        return f"<Dictation {self._pieces} pieces{', complete' if self.complete else ''}>"


def decode_completion(reply: bytes) -> Completion:
    """Return a whole completion; raise ``UpstreamFailed``."""
    try:
        return _completions.decode(reply)
    except ValueError as error:  # not JSON, not this shape, not UTF-8
        raise UpstreamFailed(f"language model: unusable answer: {error}") from error


def cost_of(completion: Completion) -> Usage:
    """Return what a whole completion cost."""
    return _usage(completion.usage)


def decode_usage(data: bytes) -> Usage | None:
    """Return what a completion, or an event of one, says that it cost; None if it does not."""
    try:
        told = _chunks.decode(data).usage
    except ValueError:
        return None  # not JSON, [DONE], half of an event
    return None if told is None else _usage(told)


def decode_text(reply: bytes) -> str:
    """Return the text of all choices of a completion, as far as there is any."""
    try:
        choices = _completions.decode(reply).choices
    except ValueError:  # not JSON, not this shape, not UTF-8
        return ""
    return "".join(choice.message.content or "" for choice in choices)


def count(usage: Usage) -> None:
    """Add a completion's tokens to the metrics."""
    LLM_TOKENS.labels("prompt").inc(usage.prompt_tokens)
    LLM_TOKENS.labels("completion").inc(usage.completion_tokens)


def _usage(counted: _Usage | None) -> Usage:
    counted = counted or _Usage()
    return Usage(
        counted.prompt_tokens,
        counted.completion_tokens,
        counted.total_tokens or counted.prompt_tokens + counted.completion_tokens,
    )


def _not_empty(text: str | None) -> str:
    if not text or not text.strip():
        raise UpstreamFailed("language model: empty answer")
    return text
