"""A client's own request to the language model: passed on as it is, and so is what comes back.

Clients have titles, tags and follow-up questions written so. Those who know one model only ask
that one for them, too: what is no question to the documents is recognised by its words.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
from aiohttp import web

from ragserve.errors import UnknownModel
from ragserve.flow.context import Context
from ragserve.handlers.completion import DONE, Chunks
from ragserve.handlers.services import SERVICES
from ragserve.handlers.sse import EventStream
from ragserve.handlers.streams import stream
from ragserve.openai import Addressed
from ragserve.pipeline import Relaying
from ragserve.upstream import CallFailed, Refusal

OURS = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.PROXY_AUTHENTICATION_REQUIRED,
    }
)
"""Said of this server's key, which is none of the client's business."""

_SIDE_TASK = re.compile(
    # Open WebUI's default prompts for titles, tags, follow-ups, queries, emoji and completions.
    r"\s*### Task:.*<chat_history>"
    # LibreChat's, for titles.
    r"|\s*Provide a concise, 5-word-or-less title for the conversation"
    r"|\s*Analyze this conversation and provide:\s*1\. The detected language",
    re.DOTALL,
)


def is_side_task(text: str) -> bool:
    """Return whether a message is a chat client's own request about a conversation."""
    return _SIDE_TASK.match(text) is not None


def renamed(body: bytes, model: str) -> bytes:
    """Return a request's body as one for another model."""
    asked: dict[str, object] = msgspec.json.decode(body)
    return msgspec.json.encode({**asked, "model": model})


async def pass_on(
    request: web.Request, asked: Addressed, body: bytes, context: Context
) -> web.StreamResponse:
    """Let the language model answer ``body`` by itself, under one of its names."""
    relaying = request.app[SERVICES].pipeline.relaying
    if relaying is None or asked.model not in relaying.names:
        raise UnknownModel(f"model {asked.model!r} does not exist; GET /v1/models lists them")
    try:
        if asked.stream:
            return await _stream(request, relaying, asked.model, body, context)
        reply = await relaying.relay(asked.model, body, context)
    except CallFailed as error:
        refusal = error.refusal
        if refusal is None or refusal.status < 400 or refusal.status in OURS:
            raise
        return _as_said(refusal)
    return web.Response(body=reply, content_type="application/json")


async def _stream(
    request: web.Request,
    relaying: Relaying,
    name: str,
    body: bytes,
    context: Context,
) -> web.StreamResponse:
    pieces = EventStream(request, request.app[SERVICES].config.stream)
    answering = relaying.relay(name, body, context, pieces)
    return await stream(request, pieces, answering, _as_stream, failure=Chunks.failure)


def _as_stream(reply: bytes) -> bytes:
    """Return a whole completion as a stream of one chunk; nothing of what was streamed."""
    if not reply:
        return b""
    whole = msgspec.json.decode(reply)
    for choice in whole.get("choices", []):
        choice["delta"] = choice.pop("message", {})
    chunk = {**whole, "object": "chat.completion.chunk"}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n" + DONE


def _as_said(refusal: Refusal) -> web.Response:
    headers = {"Content-Type": refusal.content_type}
    if refusal.retry_after is not None:
        headers["Retry-After"] = refusal.retry_after
    return web.Response(body=refusal.body, status=refusal.status, headers=headers)
