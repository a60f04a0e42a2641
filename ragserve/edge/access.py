"""The outermost middleware: request id, metrics, one log line a request."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from ragserve.handlers import REQUEST_ID, SERVICES
from ragserve.metrics import HTTP_IN_FLIGHT, HTTP_REQUESTS, HTTP_SECONDS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger("ragserve.access")

UNKNOWN_ROUTE = "unknown"
"""One label for all paths that do not exist: labels must be bounded."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
REQUEST_ID_FORM = r"[A-Za-z0-9._:/+=-]{1,128}"
"""A client's own id, if it is harmless in logs and headers."""
_REQUEST_ID = re.compile(REQUEST_ID_FORM)
# Scrapes and probes come every few seconds and say nothing.
QUIET = frozenset({"/health", "/ready", "/metrics"})


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, measure it, log it."""
    start = time.perf_counter()
    services = request.app[SERVICES]
    request_id = _request_id(request)
    request[REQUEST_ID] = request_id
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else UNKNOWN_ROUTE
    status = 499  # nginx's number for a client that left; replaced by what is answered
    HTTP_IN_FLIGHT.inc()
    try:
        with services.in_flight, structlog.contextvars.bound_contextvars(request_id=request_id):
            response = await handler(request)
        status = response.status
        if not response.prepared:
            response.headers["X-Request-ID"] = request_id
            if services.phase == "draining":
                response.force_close()
    finally:
        seconds = time.perf_counter() - start
        HTTP_IN_FLIGHT.dec()
        method = request.method if request.method in METHODS else "other"
        HTTP_REQUESTS.labels(route, method, status).inc()
        HTTP_SECONDS.labels(route).observe(seconds)
        if services.config.log.access and route not in QUIET:
            log.info(
                "request",
                request_id=request_id,
                method=request.method,
                path=request.path,
                status=status,
                ms=round(seconds * 1000, 2),
                remote=request.remote,
            )
    return response


def _request_id(request: web.Request) -> str:
    """Return the client's id if it is harmless in logs and headers, a new one otherwise."""
    given = request.headers.get("X-Request-ID", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
