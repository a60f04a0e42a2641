"""Any OpenAI-compatible chat model: prompts, answers, rewritten questions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec

from ragserve.config import LlmConfig
from ragserve.embed.tokens import count_recurring, count_tokens
from ragserve.errors import DeadlineExceeded
from ragserve.flow.breaker import Alone, Trials
from ragserve.flow.deadline import Deadline
from ragserve.generate.answer import Answer, cite
from ragserve.generate.conversation import Conversation, Options, Turn
from ragserve.generate.cost import RelayedCost, estimate
from ragserve.generate.prompt import build_prompt, build_rewrite, one_line
from ragserve.generate.reply import Dictation, cost_of, count, decode_completion
from ragserve.schema import SearchResult, Usage
from ragserve.tracing import model_span, usage
from ragserve.upstream import Member, Patience, Server, Sink, Speak, Through, Upstream

CHAT = "/chat/completions"
REWRITE_OPTIONS = Options(temperature=0.0, max_tokens=100)


class Prompt(msgspec.Struct, frozen=True):
    """Chat messages, and the passages in them, numbered from 1."""

    messages: list[dict[str, str]]
    passages: list[SearchResult]


class LanguageModel:
    """A chat model behind HTTP."""

    def __init__(
        self, config: LlmConfig, trials: Callable[[str], Trials] = lambda _: Alone()
    ) -> None:
        self._config = config
        members = [
            Member(
                Server(
                    "language model",
                    server.base_url,
                    server.api_key,
                    connections=config.connections,
                    connect_timeout_s=config.connect_timeout_s,
                    timeout_s=config.timeout_s,
                    model=server.model or config.model,
                    ca_file=config.ca_file,
                ),
                weight=server.weight,
                priority=server.priority,
                trials=trials(f"language model {server.base_url}"),
            )
            for server in config.servers
        ]
        self._upstream = Upstream(members, attempts=config.attempts)
        self._patience = Patience(config.first_token_timeout_s, config.token_timeout_s)

    @property
    def name(self) -> str:
        """Return what the model is called."""
        return self._config.model

    @property
    def names(self) -> list[str]:
        """Return the names by which clients may ask it: its own, and those of single servers."""
        servers = (member.server.model for member in self._upstream.members)
        return list(dict.fromkeys((self.name, *servers)))

    def prompt(
        self, question: str, passages: Sequence[SearchResult], conversation: Conversation
    ) -> Prompt:
        """Return what the model will be told: as many of the passages as fit its context."""
        messages, used = build_prompt(
            question,
            passages,
            budget_tokens=self._config.context_tokens,
            count=count_recurring,
            conversation=conversation,
        )
        return Prompt(messages, used)

    async def answer(
        self,
        prompt: Prompt,
        options: Options,
        deadline: Deadline,
        say: Callable[[bytes], None],
        spend: Callable[[int], None] = lambda _: None,
        begin: Callable[[bytearray], None] = lambda _: None,
    ) -> Answer:
        """Return the model's answer; ``say`` hears its text, marks resolved, piece by piece.

        Pieces are as they stand between the quotes of a JSON string. Before the first one ``begin``
        is given what will hold all that have been said. ``spend`` is told how many tokens it took,
        also of an answer that broke off.

        What fails before the first piece is tried again; afterwards nothing is.
        """
        body = {
            **self._body(prompt.messages, options),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begun: list[Dictation] = []

        async def dictate(server: Server, speak: Speak) -> Dictation:

            def first() -> None:
                speak()
                begin(dictation.said)

            dictation = Dictation(len(prompt.passages), say, first)
            begun.append(dictation)
            dictation.model = server.model
            reply = await server.post(
                CHAT,
                msgspec.json.encode({"model": server.model, **body}),
                dictation.hear,
                self._patience,
                skimmer=dictation,
            )
            if not dictation.heard:
                dictation.take(reply)
            return dictation

        with model_span("chat", self.name) as span:
            try:
                async with _within(deadline):
                    dictation = await self._upstream.call(dictate, hedged=self._config.hedge)
            except BaseException:  # what has been said has been paid for, here, too
                for one in begun:
                    if one.said:
                        spend(_settle(prompt, one).total_tokens)
                raise
            dictation.end()
            cost = _settle(prompt, dictation)
            spend(cost.total_tokens)
            span.note(usage(cost, dictation.model))
        citations = [cite(index, prompt.passages[index - 1]) for index in dictation.marks.indexes]
        return Answer(
            dictation.text,
            citations,
            dictation.model,
            cost,
            complete=dictation.complete,
        )

    async def rewrite(
        self,
        question: str,
        history: Sequence[Turn],
        deadline: Deadline,
        spend: Callable[[int], None] = lambda _: None,
    ) -> tuple[str, Usage]:
        """Return the question as it reads without the conversation before it, and the cost."""
        budget = self._config.context_tokens - count_tokens(question)
        messages = build_rewrite(question, history, budget_tokens=budget, count=count_tokens)
        body = self._body(messages, REWRITE_OPTIONS)

        async def ask(server: Server, _: Speak) -> bytes:
            return await server.post(CHAT, msgspec.json.encode({"model": server.model, **body}))

        with model_span("chat", self.name) as span:
            async with _within(deadline):
                reply = decode_completion(await self._upstream.call(ask))
            cost = cost_of(reply)
            if not cost.total_tokens:
                cost = estimate(_size(messages), len(reply.text.encode()))
            span.note(usage(cost, reply.model))
        count(cost)
        spend(cost.total_tokens)
        return one_line(reply.text), cost

    async def relay(
        self,
        name: str,
        content: bytes,
        deadline: Deadline,
        sink: Sink | None = None,
        spend: Callable[[int], None] = lambda _: None,
        begin: Callable[[], None] = lambda: None,
    ) -> bytes:
        """Return the server's reply to a client's own request for the model ``name``, as it is.

        A stream goes to ``sink`` in the pieces in which it arrives, and nothing is returned;
        ``begin`` is called before the first of them. The request travels as it is, too, but to a
        server that calls the model otherwise. ``spend`` is told how many tokens it took, whole or
        not.
        """
        cost = RelayedCost(content)

        async def ask(server: Server, speak: Speak) -> bytes:
            sent = content if server.model == name else _renamed(content, server.model)
            if sink is None:
                return await server.post(CHAT, sent)

            def first() -> None:
                speak()
                begin()

            through = Through(sink, cost, first)
            return await server.post(
                CHAT, sent, through.hear, self._patience, skimmer=through, raw=True
            )

        def answers(server: Server) -> bool:
            return name in (self.name, server.model)

        hedged = self._config.hedge and sink is not None
        with model_span("chat", name) as span:
            try:
                async with _within(deadline):
                    reply = await self._upstream.call(ask, hedged=hedged, among=answers)
                if reply:
                    cost.take(reply)
            finally:  # what has been passed on has been paid for, whatever came then
                taken = cost.settle()
                spend(taken.total_tokens)
            span.note(usage(taken, name))
        return reply

    async def check(self) -> None:
        """Raise ``UpstreamFailed`` unless the model's server lists its models."""
        await self._upstream.get("/models")

    async def close(self) -> None:
        """Close the connections."""
        await self._upstream.close()

    def _body(self, messages: Sequence[Mapping[str, str]], options: Options) -> dict[str, object]:
        return {
            "messages": messages,
            "max_tokens": self._config.max_tokens,
            "temperature": self._config.temperature,
            **msgspec.to_builtins(options),
        }


def _settle(prompt: Prompt, dictation: Dictation) -> Usage:
    """Return, and count, what an answer has cost, whole or not: as told, else as estimated."""
    cost = dictation.usage
    if not cost.total_tokens:
        cost = estimate(_size(prompt.messages), len(dictation.said))
    count(cost)
    return cost


def _size(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(len(message["content"].encode()) for message in messages)


def _renamed(content: bytes, model: str) -> bytes:
    request: dict[str, object] = msgspec.json.decode(content)
    return msgspec.json.encode({**request, "model": model})


@asynccontextmanager
async def _within(deadline: Deadline) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline.at):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"language model: no answer within the request's {deadline.budget_s} s"
        ) from error
