"""The outermost middleware: request id, metrics, one log line a request."""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from ragserve.edge.address import ADDRESS
from ragserve.edge.problem import CLIENT_LEFT
from ragserve.edge.request_id import REQUEST_IDS
from ragserve.edge.tally import Tally
from ragserve.handlers import REQUEST_ID, SERVICES
from ragserve.log import REQUEST_ID as LOGGED_AS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger("ragserve.access")

UNKNOWN_ROUTE = "unknown"
"""One label for all paths that do not exist: labels must be bounded."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Scrapes and probes come every few seconds and say nothing.
QUIET = frozenset({"/health", "/ready", "/metrics"})
_tally = functools.cache(Tally)


@web.middleware
async def access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, measure it, log it."""
    start = time.perf_counter()
    services = request.app[SERVICES]
    request_id = REQUEST_IDS.text(request.headers.get("X-Request-ID", ""))
    request[REQUEST_ID] = request_id
    LOGGED_AS.set(request_id)
    status = CLIENT_LEFT  # unless something is answered
    try:
        with services.in_flight:
            response = await handler(request)
        status = response.status
        if not response.prepared:
            response.headers["X-Request-ID"] = request_id
            if services.phase == "draining":
                response.force_close()
    finally:
        seconds = time.perf_counter() - start
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else UNKNOWN_ROUTE
        method = request.method if request.method in METHODS else "other"
        _tally(route, method, status).count(seconds)
        if services.config.log.access and route not in QUIET:
            log.info(
                "request",
                method=request.method,
                path=request.path,
                status=status,
                ms=round(seconds * 1000, 2),
                remote=request.get(ADDRESS, request.remote),
            )
    return response
