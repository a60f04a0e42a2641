"""Chat completions: any OpenAI client asks the documents by its ordinary means.

``model`` says who answers: ``rag`` from the default collection, ``rag:NAME`` from another, and a
name of the language model's own lets that answer without any documents.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import msgspec
from aiohttp import web

from ragserve.errors import InvalidRequest
from ragserve.generate import Conversation, Options, Turn
from ragserve.handlers.ask import wishes_of
from ragserve.handlers.body import decode_json, json_response, read_json_body
from ragserve.handlers.completion import Chunks, completion
from ragserve.handlers.passing import is_side_task, pass_on, renamed
from ragserve.handlers.services import MAY_SPEND, PRINCIPAL, SERVICES, SPEND
from ragserve.handlers.sse import EventStream
from ragserve.handlers.streams import stream
from ragserve.handlers.timeout import wanted_timeout_s
from ragserve.openai import WISHES, Addressed, ChatMessage, ChatRequest
from ragserve.schema import DEFAULT_COLLECTION, SearchRequest

RAG = "rag"
_WISH = re.compile(rf"({'|'.join(sorted(WISHES))})(?:[.\[]|$)")


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer the last message of a conversation from the documents."""
    services = request.app[SERVICES]
    start = time.monotonic()
    body = await read_json_body(request)
    addressed = decode_json(body, Addressed, strict=False)
    collection = collection_of(addressed.model)
    principal, wanted_s = request[PRINCIPAL], wanted_timeout_s(request)
    if collection is None:
        context = services.context(principal, start, wanted_s)
        context.may_spend, context.spend = request[MAY_SPEND], request[SPEND]
        return await pass_on(request, addressed, body, context)
    asked = decode_chat(body)
    context = services.context(principal, start, asked.timeout, wanted_s)
    context.may_spend, context.spend = request[MAY_SPEND], request[SPEND]
    question, conversation = conversation_of(asked)
    if services.model is not None and is_side_task(question):
        addressed = msgspec.structs.replace(addressed, model=services.model.name)
        return await pass_on(request, addressed, renamed(body, addressed.model), context)
    top_k = passages_of(asked.top_k, services.config.limits.top_k)
    wanted = SearchRequest(question, collection, top_k=top_k, mode=asked.mode, filter=asked.filter)
    query, wishes = services.pipeline.query, wishes_of(request)
    if not asked.stream:
        answer = await query(wanted, context, conversation=conversation, wishes=wishes)
        response = json_response(completion(answer, asked.model))
        response.headers.update(context.headers())
        return response
    chunks = _chunks(asked)
    events = EventStream(request, services.config.stream, chunks)
    answering = query(wanted, context, events.hear, conversation, wishes)
    return await stream(
        request, events, answering, chunks.end, context.headers, failure=chunks.failure
    )


def decode_chat(body: bytes) -> ChatRequest:
    """Return a request; of what is a wish only, nothing is an error (``WISHES``)."""
    try:
        return decode_json(body, ChatRequest, strict=False)
    except InvalidRequest as error:
        wish = _WISH.match(error.param or "")
        if wish is None:
            raise
    asked: dict[str, object] = msgspec.json.decode(body)
    del asked[wish[1]]
    return decode_chat(msgspec.json.encode(asked))


def passages_of(top_k: int | None, most: int) -> int | None:
    """Return how many passages ``top_k`` asks for, None if it does not.

    Other servers of this API take it for a choice among words, of which there may be many.
    """
    return None if top_k is None or top_k < 1 else min(top_k, most)


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
    if not asked.messages[last].text.strip():
        raise InvalidRequest(f"messages[{last}]: no text to answer", param="messages")
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


def _chunks(asked: ChatRequest) -> Chunks:
    options = asked.stream_options
    return Chunks(asked.model, usage=options is not None and bool(options.include_usage))
