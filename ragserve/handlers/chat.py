"""Chat completions: any OpenAI client asks the documents by its ordinary means.

``model`` says who answers: ``rag`` from the default collection, ``rag:NAME`` from another, and the
configured language model's own name, without any documents (clients have titles written so).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from ragserve.errors import InvalidRequest, UnknownModel
from ragserve.flow.context import Context
from ragserve.generate import Conversation, LanguageModel, Options, Turn, tokens_of
from ragserve.handlers.ask import note_tokens, wishes_of
from ragserve.handlers.body import decode_json, json_response, read_json_body
from ragserve.handlers.completion import DONE, Chunks, completion
from ragserve.handlers.services import MAY_SPEND, PRINCIPAL, SERVICES, TOKENS
from ragserve.handlers.sse import EventStream
from ragserve.handlers.streams import stream
from ragserve.handlers.timeout import wanted_timeout_s
from ragserve.openai import ChatMessage, ChatRequest
from ragserve.pipeline import Event
from ragserve.schema import DEFAULT_COLLECTION, QueryResponse, SearchRequest

RAG = "rag"


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer the last message of a conversation from the documents."""
    services = request.app[SERVICES]
    start = time.monotonic()
    body = await read_json_body(request)
    asked = decode_json(body, ChatRequest)
    principal, wanted_s = request[PRINCIPAL], wanted_timeout_s(request)
    context = services.context(principal, start, asked.timeout, wanted_s)
    context.may_spend = request[MAY_SPEND]
    collection = collection_of(asked.model)
    if collection is None:
        return await _pass_on(request, services.model, asked, body, context)
    question, conversation = conversation_of(asked)
    wanted = SearchRequest(
        question, collection, top_k=asked.top_k, mode=asked.mode, filter=asked.filter
    )
    query, wishes = services.pipeline.query, wishes_of(request)
    if not asked.stream:
        answer = await query(wanted, context, conversation=conversation, wishes=wishes)
        note_tokens(request, context, answer)
        response = json_response(completion(answer, asked.model))
        response.headers.update(context.headers())
        return response
    chunks = _chunks(asked)
    events: EventStream[Event] = EventStream(request, services.config.stream, chunks.encode)
    answering = query(wanted, context, events.hear, conversation, wishes)

    def end(answer: QueryResponse) -> bytes:
        note_tokens(request, context, answer)
        return chunks.end(answer)

    return await stream(request, events, answering, end, context.headers, failure=chunks.failure)


def collection_of(model: str) -> str | None:
    """Return the collection that ``model`` names, None if it names none."""
    kind, colon, name = model.partition(":")
    if kind != RAG:
        return None
    return name if colon else DEFAULT_COLLECTION


def conversation_of(asked: ChatRequest) -> tuple[str, Conversation]:
    """Return the question, which is the user's last message, and what was said before it."""
    last = max(
        (number for number, message in enumerate(asked.messages) if message.role == "user"),
        default=-1,
    )
    if last < 0:
        raise InvalidRequest("messages: none is of role 'user'", param="messages")
    longest = asked.max_completion_tokens
    options = Options(
        temperature=asked.temperature,
        max_tokens=asked.max_tokens if longest is None else longest,
        top_p=asked.top_p,
        stop=asked.stop,
        seed=asked.seed,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
    )
    return asked.messages[last].text, Conversation(turns_of(asked.messages[:last]), options)


def turns_of(messages: Sequence[ChatMessage]) -> tuple[Turn, ...]:
    """Return what was said; calls of tools and their results are left out."""
    turns = []
    for message in messages:
        if message.role in ("system", "developer"):
            turns.append(Turn("system", message.text))
        elif message.role in ("user", "assistant") and message.text:
            turns.append(Turn("user" if message.role == "user" else "assistant", message.text))
    return tuple(turns)


async def _pass_on(
    request: web.Request,
    model: LanguageModel | None,
    asked: ChatRequest,
    body: bytes,
    context: Context,
) -> web.StreamResponse:
    """Let the language model answer by itself."""
    if model is None or asked.model != model.name:
        raise UnknownModel(f"model {asked.model!r} does not exist; GET /v1/models lists them")
    context.may_spend()
    if not asked.stream:
        reply = await model.relay(body, context.deadline)
        request[TOKENS] = tokens_of(reply)
        return web.Response(body=reply, content_type="application/json")
    config = request.app[SERVICES].config.stream
    pieces: EventStream[bytes] = EventStream(request, config, bytes)
    # An event is about a token, and four bytes of a prompt are: what a stream costs is rarely said.
    used = len(body) // 4
    forward = pieces.hear

    def hear(piece: bytes) -> None:
        nonlocal used
        used += piece.count(b"data:")
        forward(piece)

    answering = model.relay(body, context.deadline, hear)
    try:
        return await stream(request, pieces, answering, _as_stream, failure=Chunks.failure)
    finally:
        request[TOKENS] = used


def _as_stream(reply: bytes) -> bytes:
    """Return a whole completion as a stream of one chunk; nothing, if it was streamed."""
    if not reply:
        return b""
    whole = msgspec.json.decode(reply)
    for choice in whole.get("choices", []):
        choice["delta"] = choice.pop("message", {})
    chunk = {**whole, "object": "chat.completion.chunk"}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n" + DONE


def _chunks(asked: ChatRequest) -> Chunks:
    options = asked.stream_options
    return Chunks(asked.model, usage=options is not None and options.include_usage)
