"""Questions and searches."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web

from ragserve.cache import Wishes, parse_wishes
from ragserve.cache.directives import ANY
from ragserve.flow.context import Context
from ragserve.handlers.body import decode_json, json_response, read_json_body
from ragserve.handlers.kept import KeptResponse
from ragserve.handlers.services import MAY_SPEND, PRINCIPAL, SERVICES, SPEND
from ragserve.handlers.sse import EventStream
from ragserve.handlers.streams import stream
from ragserve.handlers.timeout import wanted_timeout_s
from ragserve.pipeline import Answered, Sources
from ragserve.schema import AnswerEnd, ErrorResponse, QueryRequest, QueryResponse, SearchRequest


async def search(request: web.Request) -> web.StreamResponse:
    """Return the passages that fit a query best."""
    services = request.app[SERVICES]
    start = time.monotonic()
    wishes = wishes_of(request)
    body = await read_json_body(request)
    kept = try_kept(request, body, wishes)
    if kept is not None:
        return kept
    asked = decode_json(body, SearchRequest)
    principal, wanted_s = request[PRINCIPAL], wanted_timeout_s(request)
    context = services.context(principal, start, asked.timeout, wanted_s)
    answered = await services.pipeline.search(asked, context, wishes)
    return _respond(request, body, context, answered)


async def query(request: web.Request) -> web.StreamResponse:
    """Answer a question from the documents, with citations."""
    services = request.app[SERVICES]
    start = time.monotonic()
    wishes = wishes_of(request)
    body = await read_json_body(request)
    kept = try_kept(request, body, wishes)
    if kept is not None:
        return kept
    asked = decode_json(body, QueryRequest)
    principal, wanted_s = request[PRINCIPAL], wanted_timeout_s(request)
    context = services.context(principal, start, asked.timeout, wanted_s)
    context.may_spend, context.spend = request[MAY_SPEND], request[SPEND]
    if asked.stream:
        events = EventStream(request, services.config.stream, FRAMES)
        answering = services.pipeline.query(asked, context, events.hear, wishes=wishes)
        return await stream(
            request, events, answering, FRAMES.end, context.headers, failure=FRAMES.failure
        )
    answered = await services.pipeline.answer(asked, context, wishes)
    return _respond(request, body, context, answered)


def try_kept(request: web.Request, body: bytes, wishes: Wishes) -> KeptResponse | None:
    """Return the answer to exactly this body, if it is in memory: nothing need be understood."""
    principal = request[PRINCIPAL]
    # A key for some collections only: the collection has to be looked at.
    if wishes is not ANY or principal.collections is not None:
        return None
    if request.version != HttpVersion11:
        return None
    answers = request.app[SERVICES].answers
    path = request.path.encode()
    prepared = answers.try_prepared(principal.tenant, path, body, time.monotonic())
    return None if prepared is None else KeptResponse(prepared)


def wishes_of(request: web.Request) -> Wishes:
    """Return what the request's headers want of the cache."""
    headers = request.headers
    return parse_wishes(headers.get("Cache-Control"), headers.get("Pragma"))


def _respond(
    request: web.Request, body: bytes, context: Context, answered: Answered[Any]
) -> web.Response:
    """Return the answer; from now on the express lane knows the body that asked for it."""
    value, entry, tier = answered
    # The answer to another question is told to be one every time: it is not this body's.
    if entry is not None and tier != "semantic":
        request.app[SERVICES].answers.note_body(request.path, body, entry)
    if value is None and entry is not None:
        response = web.Response(body=entry.prepared.body, content_type="application/json")
    else:
        response = json_response(value)
    response.headers.update(context.headers())
    return response


class AnswerFrames:
    """The frames of a streamed answer: ``sources`` with citations, ``delta`` with text, ``end``."""

    around = (b'event: delta\ndata: {"text":"', b'"}\n\n')

    @staticmethod
    def sources(sources: Sources) -> bytes:
        """Return the frame of what an answer is made from."""
        return b"event: sources\ndata: " + msgspec.json.encode(sources) + b"\n\n"

    @staticmethod
    def end(answer: QueryResponse) -> bytes:
        """Return the last frame: what is known of an answer once it is complete."""
        end = AnswerEnd(
            answer.id,
            [citation.index for citation in answer.citations],
            answer.model,
            answer.usage,
            answer.cache,
            answer.degraded,
        )
        return b"event: end\ndata: " + msgspec.json.encode(end) + b"\n\n"

    @staticmethod
    def failure(error: ErrorResponse) -> bytes:
        """Return the frame ``error``, the last one of a stream that failed."""
        return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


FRAMES = AnswerFrames()
