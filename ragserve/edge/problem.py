"""Errors to responses: the one place that decides what a client sees of a failure."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

from aiohttp import web

from ragserve.edge.strict import check_head
from ragserve.errors import MalformedRequest, RagserveError, Unauthorized, Unavailable
from ragserve.handlers import REQUEST_ID
from ragserve.handlers.body import json_response
from ragserve.handlers.failure import describe
from ragserve.metrics import CLIENTS_DROPPED
from ragserve.schema import ErrorBody, ErrorResponse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLIENT_LEFT = 499
"""nginx's number for what nobody gets, counted in the metrics."""
RETRY_S = (0.5, 4.5)
"""A 503 that does not know when to come back says so much, at random: not all at once."""


@web.middleware
async def problem(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with the error's envelope; what nobody foresaw becomes a 500 without details."""
    try:
        check_head(request)
        return await handler(request)
    except RagserveError as error:
        response = json_response(describe(error, request[REQUEST_ID]), status=error.status)
        retry_after_s = error.retry_after_s
        if retry_after_s is None and error.status == Unavailable.status:
            retry_after_s = random.uniform(*RETRY_S)  # noqa: S311 - spreads load
        if retry_after_s is not None:
            response.headers["Retry-After"] = str(math.ceil(retry_after_s))
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = "Bearer"
        if isinstance(error, MalformedRequest):
            CLIENTS_DROPPED.labels("malformed").inc()
            response.force_close()
        return response
    except web.HTTPException as error:
        return _http_error(request, error)
    except Exception as error:  # noqa: BLE001 - logged with its traceback by describe
        if isinstance(error, ConnectionError) and _has_left(request):
            return web.Response(status=CLIENT_LEFT)
        return json_response(describe(error, request[REQUEST_ID]), status=500)


def _has_left(request: web.Request) -> bool:
    """Return whether there is nobody to answer any more."""
    return request.transport is None or request.transport.is_closing()


def _http_error(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """Dress an error of aiohttp's own, such as 404 and 405, in our envelope."""
    code = error.reason.lower().replace(" ", "_")
    message = f"{request.method} {request.path}: {error.reason}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        message += f"; allowed: {', '.join(sorted(error.allowed_methods))}"
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = ErrorBody(message, kind, None, code, request[REQUEST_ID])
    response = json_response(ErrorResponse(body), status=error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
