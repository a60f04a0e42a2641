"""Questions and searches."""

from __future__ import annotations

import time

from aiohttp import web

from ragserve.errors import InvalidRequest
from ragserve.handlers.body import json_response, read_json
from ragserve.handlers.services import SERVICES
from ragserve.schema import QueryRequest, SearchRequest


async def search(request: web.Request) -> web.Response:
    """Return the passages that fit a query best."""
    services = request.app[SERVICES]
    context = services.context(time.monotonic())
    found = await services.pipeline.search(await read_json(request, SearchRequest), context)
    response = json_response(found)
    response.headers["Server-Timing"] = context.server_timing()
    return response


async def query(request: web.Request) -> web.Response:
    """Answer a question from the documents, with citations."""
    services = request.app[SERVICES]
    context = services.context(time.monotonic())
    asked = await read_json(request, QueryRequest)
    if asked.stream:
        raise InvalidRequest("stream: this release answers whole, not in a stream", param="stream")
    response = json_response(await services.pipeline.query(asked, context))
    response.headers["Server-Timing"] = context.server_timing()
    return response
