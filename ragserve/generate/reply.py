"""What a chat model sends back: a whole completion, or chunks of one as they are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

import msgspec

from ragserve.errors import UpstreamFailed
from ragserve.generate.marks import Marks
from ragserve.generate.refrain import Refrain
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
_encode = msgspec.json.Encoder().encode
_CHARACTER_BYTES = 4
"""Of the longest one in UTF-8."""
_observe_gap = TEXT_GAP_SECONDS.observe


class Dictation:
    """A model's words on their way to ``say``, marks resolved; ``text`` is all that was said.

    ``say`` gets them as they stand between a JSON string's quotes, and ``said`` keeps them so.
    ``begin`` is called before the first of them, and may raise ``CallFailed``. ``heard_at`` is when
    there were words last, in monotonic seconds; 0 before the first.
    """

    __slots__ = (
        "_begin",
        "_fed",
        "_ready",
        "_refrain",
        "_say",
        "complete",
        "heard",
        "heard_at",
        "marks",
        "model",
        "said",
        "usage",
    )

    def __init__(
        self, passages: int, say: Callable[[bytes], None], begin: Callable[[], None] = lambda: None
    ) -> None:
        self._refrain = Refrain(_only_word)
        self.marks = Marks(passages)
        self.said = bytearray()
        self.heard_at = 0.0
        self._say = say
        self._begin = begin
        self._ready = False
        """Whether plain words can be said as they are."""
        self._fed = 0
        """How much had been said when that was found: what is behind it was plain."""
        self.heard = False
        self.model = ""
        self.usage = Usage()
        self.complete = False

    @property
    def text(self) -> str:
        """Return what has been said; raise ``UpstreamFailed`` if that is nothing."""
        return _not_empty(msgspec.json.decode(b'"%b"' % bytes(self.said), type=str))

    def skim(self, chunk: bytes) -> bool:
        """Take an HTTP chunk if it is one event, like one before but for its word."""
        if not self._ready:
            return False
        word = self._refrain.try_word(chunk)
        if word is None:
            return False
        now = monotonic()
        _observe_gap(now - self.heard_at)
        self.heard_at = now
        self.said += word
        self._say(word)
        return True

    def hear(self, events: Sequence[bytes]) -> None:
        """Take the data of events that arrived together; raise ``CallFailed``."""
        words = ""
        self.heard = True
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
            now = monotonic()
            if self.heard_at:
                _observe_gap(now - self.heard_at)
            self.heard_at = now
            self._tell(self.marks.feed(words, self._passed()))
            self._fed = len(self.said)
            self._ready = self.marks.ready and self._fed > 0
            self._refrain.learn(events[-1])

    def take(self, reply: bytes) -> None:
        """Take a whole completion in place of events; raise ``UpstreamFailed``."""
        whole = decode_completion(reply)
        self.model, self.usage = whole.model or self.model, _usage(whole.usage)
        self.complete = whole.choices[0].finish_reason in (None, "stop") if whole.choices else False
        self._tell(self.marks.feed(whole.text))

    def end(self) -> None:
        """Say what was held back."""
        self._tell(self.marks.end())

    def _passed(self) -> str:
        """Return the last character that the marks have not seen, if there is one."""
        if len(self.said) == self._fed:
            return ""
        return self.said[-_CHARACTER_BYTES:].decode(errors="ignore")[-1]

    def _tell(self, text: str) -> None:
        """Say it if it is anything."""
        if not text:
            return
        if not self.said:
            self._begin()
        words = _encode(text)[1:-1]
        self.said += words
        self._say(words)

    def __repr__(self) -> str:
        return f"<Dictation {len(self.said)} bytes{', complete' if self.complete else ''}>"


def _only_word(data: bytes) -> str | None:
    """Return the word of an event that says nothing else but whose it is."""
    try:
        chunk = _chunks.decode(data)
    except ValueError:
        return None
    if chunk.error is not None or chunk.usage is not None or len(chunk.choices) != 1:
        return None
    choice = chunk.choices[0]
    return choice.delta.content if choice.delta and choice.finish_reason is None else None


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
