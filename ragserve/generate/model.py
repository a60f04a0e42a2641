"""Any OpenAI-compatible chat model, asked for a whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from ragserve.config import LlmConfig
from ragserve.embed.tokens import count_tokens
from ragserve.errors import DeadlineExceeded, UpstreamFailed
from ragserve.flow.deadline import Deadline
from ragserve.generate.answer import Answer, resolve_marks
from ragserve.generate.prompt import build_prompt
from ragserve.metrics import LLM_TOKENS
from ragserve.schema import SearchResult, Usage
from ragserve.upstream import Upstream


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Reply(msgspec.Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


class LanguageModel:
    """A chat model behind HTTP."""

    def __init__(self, config: LlmConfig) -> None:
        self._config = config
        self._upstream = Upstream(
            "language model",
            config.base_url,
            config.api_key,
            connections=config.connections,
            connect_timeout_s=config.connect_timeout_s,
            timeout_s=config.timeout_s,
            attempts=config.attempts,
        )

    async def answer(
        self, question: str, passages: Sequence[SearchResult], deadline: Deadline
    ) -> Answer:
        """Return the model's answer from ``passages``, its marks mapped to citations."""
        messages, used = build_prompt(
            question, passages, budget_tokens=self._config.context_tokens, count=count_tokens
        )
        body = {
            "model": self._config.model,
            "messages": messages,
            "max_tokens": self._config.max_tokens,
            "temperature": self._config.temperature,
        }
        try:
            async with asyncio.timeout_at(deadline.at):
                reply = await self._upstream.post("/chat/completions", body)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"language model: no answer within the request's {deadline.budget_s} s"
            ) from error
        return self._read(reply, used)

    async def check(self) -> None:
        """Raise ``UpstreamFailed`` unless the model's server lists its models."""
        await self._upstream.get("/models")

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.close()

    def _read(self, reply: bytes, passages: Sequence[SearchResult]) -> Answer:
        try:
            decoded = msgspec.json.decode(reply, type=_Reply)
        except ValueError as error:  # not JSON, not this shape, not UTF-8
            raise UpstreamFailed(f"language model: unusable answer: {error}") from error
        text = decoded.choices[0].message.content if decoded.choices else None
        if not text or not text.strip():
            raise UpstreamFailed("language model: empty answer")
        counted = decoded.usage or _Usage()
        usage = Usage(
            counted.prompt_tokens,
            counted.completion_tokens,
            counted.total_tokens or counted.prompt_tokens + counted.completion_tokens,
        )
        LLM_TOKENS.labels("prompt").inc(usage.prompt_tokens)
        LLM_TOKENS.labels("completion").inc(usage.completion_tokens)
        resolved, citations = resolve_marks(text.strip(), passages)
        return Answer(resolved, citations, decoded.model or self._config.model, usage)
