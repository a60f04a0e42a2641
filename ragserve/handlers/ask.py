"""Questions and searches."""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from ragserve.handlers.body import json_response, read_json
from ragserve.handlers.services import SERVICES
from ragserve.handlers.sse import EventStream
from ragserve.handlers.streams import stream
from ragserve.pipeline import Event, Sources
from ragserve.schema import AnswerEnd, QueryRequest, QueryResponse, SearchRequest


async def search(request: web.Request) -> web.Response:
    """Return the passages that fit a query best."""
    services = request.app[SERVICES]
    context = services.context(time.monotonic())
    found = await services.pipeline.search(await read_json(request, SearchRequest), context)
    response = json_response(found)
    response.headers["Server-Timing"] = context.server_timing()
    return response


async def query(request: web.Request) -> web.StreamResponse:
    """Answer a question from the documents, with citations."""
    services = request.app[SERVICES]
    context = services.context(time.monotonic())
    asked = await read_json(request, QueryRequest)
    if asked.stream:
        events: EventStream[Event] = EventStream(request, services.config.stream, encode_event)
        answering = services.pipeline.query(asked, context, events.hear)
        return await stream(request, events, answering, encode_end)
    response = json_response(await services.pipeline.query(asked, context))
    response.headers["Server-Timing"] = context.server_timing()
    return response


def encode_event(event: Event) -> bytes:
    """Return the SSE frame of an event: ``sources`` with citations, or ``delta`` with text."""
    if isinstance(event, Sources):
        return b"event: sources\ndata: " + msgspec.json.encode(event) + b"\n\n"
    return b'event: delta\ndata: {"text":' + event.json + b"}\n\n"


def encode_end(answer: QueryResponse) -> bytes:
    """Return the last SSE frame, ``end``: what is known of an answer once it is complete."""
    end = AnswerEnd(
        answer.id,
        [citation.index for citation in answer.citations],
        answer.model,
        answer.usage,
        answer.cache,
        answer.degraded,
    )
    return b"event: end\ndata: " + msgspec.json.encode(end) + b"\n\n"
