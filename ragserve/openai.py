"""OpenAI's shapes: requests are read leniently, what they ask beyond us is ignored.

Field names and meanings are those of OpenAI's API reference (Chat, Models, Embeddings). ``mode``,
``top_k`` and ``filter`` are ours; their SDKs send them as ``extra_body``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ragserve.schema import Citation, Mode, Usage


class ContentPart(msgspec.Struct):
    """A piece of a message; only its text is read."""

    type: str = "text"
    text: str | None = None


class ChatMessage(msgspec.Struct):
    """One message; messages of roles other than the four here are ignored."""

    role: str
    content: str | list[ContentPart | str] | None = None

    @property
    def text(self) -> str:
        """Return what the message says."""
        if isinstance(self.content, list):
            texts = (part if isinstance(part, str) else part.text for part in self.content)
            return "\n".join(text for text in texts if text)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    """What a stream tells besides the answer."""

    include_usage: bool | None = False


class Addressed(msgspec.Struct):
    """Who is to continue a conversation; the rest of the request is theirs to read."""

    model: str
    stream: bool | None = None


class ChatRequest(msgspec.Struct):
    """A conversation to be continued."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mode: Mode | None = None
    top_k: int | None = None
    filter: dict[str, Any] | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None


WISHES = frozenset({
    "stream_options",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
})  # fmt: skip
"""What a client would like and gets an answer without."""


class UrlCitation(msgspec.Struct, frozen=True):
    """Where a passage is from. The indexes are those of its mark in the text, in characters."""

    url: str
    title: str
    start_index: int
    end_index: int


class Annotation(msgspec.Struct, frozen=True):
    """A mark in an answer's text."""

    url_citation: UrlCitation
    type: Literal["url_citation"] = "url_citation"


class AnswerMessage(msgspec.Struct, frozen=True):
    """An answer."""

    content: str
    annotations: list[Annotation]
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class ChatChoice(msgspec.Struct, frozen=True):
    """The only choice."""

    message: AnswerMessage
    index: int = 0
    logprobs: None = None
    finish_reason: Literal["stop"] = "stop"


class ChatCompletion(msgspec.Struct, frozen=True):
    """An answer, with OpenAI's annotations and with our citations."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    citations: list[Citation]
    degraded: list[str] | UnsetType = UNSET
    object: Literal["chat.completion"] = "chat.completion"


class Model(msgspec.Struct, frozen=True):
    """Something that ``model`` may name."""

    id: str
    created: int
    owned_by: str = "ragserve"
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct, frozen=True):
    """All of them."""

    data: list[Model]
    object: Literal["list"] = "list"


class EmbeddingsRequest(msgspec.Struct):
    """Texts, or token ids of the served model's tokenizer, to be turned into vectors."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = None


class Embedding(msgspec.Struct, frozen=True):
    """A vector: numbers, or base64 of little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingsUsage(msgspec.Struct, frozen=True):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(msgspec.Struct, frozen=True):
    """Vectors in the order of the texts."""

    data: list[Embedding]
    model: str
    usage: EmbeddingsUsage
    object: Literal["list"] = "list"
