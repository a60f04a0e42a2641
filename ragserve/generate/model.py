"""Any OpenAI-compatible chat model: prompts, answers, rewritten questions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ragserve.config import LlmConfig
from ragserve.embed.tokens import count_tokens
from ragserve.errors import DeadlineExceeded, UpstreamFailed
from ragserve.flow.deadline import Deadline
from ragserve.generate.answer import Answer, cite
from ragserve.generate.conversation import Conversation, Options, Turn
from ragserve.generate.marks import Marks
from ragserve.generate.prompt import build_prompt, build_rewrite
from ragserve.metrics import LLM_TOKENS
from ragserve.schema import SearchResult, Usage
from ragserve.upstream import Server, Upstream

REWRITE_OPTIONS = Options(temperature=0.0, max_tokens=100)


class Prompt(msgspec.Struct, frozen=True):
    """Chat messages, and the passages in them, numbered from 1."""

    messages: list[dict[str, str]]
    passages: list[SearchResult]


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
        server = Server(
            "language model",
            config.base_url,
            config.api_key,
            connections=config.connections,
            connect_timeout_s=config.connect_timeout_s,
            timeout_s=config.timeout_s,
        )
        self._upstream = Upstream(server, attempts=config.attempts)

    @property
    def name(self) -> str:
        """Return what the model is called."""
        return self._config.model

    def prompt(
        self, question: str, passages: Sequence[SearchResult], conversation: Conversation
    ) -> Prompt:
        """Return what the model will be told: as many of the passages as fit its context."""
        messages, used = build_prompt(
            question,
            passages,
            budget_tokens=self._config.context_tokens,
            count=count_tokens,
            conversation=conversation,
        )
        return Prompt(messages, used)

    async def answer(
        self, prompt: Prompt, options: Options, deadline: Deadline, say: Callable[[str], None]
    ) -> Answer:
        """Return the model's answer; ``say`` hears its text in pieces, marks resolved."""
        reply = await self._ask(prompt.messages, options, deadline)
        marks = Marks(len(prompt.passages))
        text = marks.feed(_text_of(reply)) + marks.end()
        say(text)
        citations = [cite(index, prompt.passages[index - 1]) for index in marks.indexes]
        return Answer(
            text,
            citations,
            reply.model or self._config.model,
            _count(reply.usage),
            complete=reply.choices[0].finish_reason in (None, "stop"),
        )

    async def rewrite(self, question: str, history: Sequence[Turn], deadline: Deadline) -> str:
        """Return the question as it reads without the conversation before it."""
        budget = self._config.context_tokens - count_tokens(question)
        messages = build_rewrite(question, history, budget_tokens=budget, count=count_tokens)
        reply = await self._ask(messages, REWRITE_OPTIONS, deadline)
        _count(reply.usage)
        return _text_of(reply).strip()

    async def complete(self, body: Mapping[str, object], deadline: Deadline) -> bytes:
        """Return the server's reply to a chat completion request, as it is."""
        try:
            async with asyncio.timeout_at(deadline.at):
                return await self._upstream.post("/chat/completions", body)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"language model: no answer within the request's {deadline.budget_s} s"
            ) from error

    async def check(self) -> None:
        """Raise ``UpstreamFailed`` unless the model's server lists its models."""
        await self._upstream.get("/models")

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.close()

    async def _ask(
        self, messages: Sequence[Mapping[str, str]], options: Options, deadline: Deadline
    ) -> _Reply:
        body: dict[str, object] = {
            "model": self._config.model,
            "messages": messages,
            "max_tokens": self._config.max_tokens,
            "temperature": self._config.temperature,
        }
        body.update(msgspec.to_builtins(options))
        try:
            return msgspec.json.decode(await self.complete(body, deadline), type=_Reply)
        except ValueError as error:  # not JSON, not this shape, not UTF-8
            raise UpstreamFailed(f"language model: unusable answer: {error}") from error


def _text_of(reply: _Reply) -> str:
    text = reply.choices[0].message.content if reply.choices else None
    if not text or not text.strip():
        raise UpstreamFailed("language model: empty answer")
    return text


def _count(counted: _Usage | None) -> Usage:
    counted = counted or _Usage()
    usage = Usage(
        counted.prompt_tokens,
        counted.completion_tokens,
        counted.total_tokens or counted.prompt_tokens + counted.completion_tokens,
    )
    LLM_TOKENS.labels("prompt").inc(usage.prompt_tokens)
    LLM_TOKENS.labels("completion").inc(usage.completion_tokens)
    return usage
