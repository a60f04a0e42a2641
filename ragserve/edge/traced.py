"""The span of each request: a middleware, and a lane that tells of what it has answered.

Neither is there without ``tracing.enabled``.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from aiohttp import web

from ragserve.edge.access import METHODS, QUIET
from ragserve.edge.address import ADDRESS
from ragserve.edge.lane import Lane, Ticket
from ragserve.handlers import REQUEST_ID
from ragserve.tracing import Attributes, Span, Tracer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ServerTracer(Tracer, Protocol):
    """A tracer that knows requests, too."""

    def serving(
        self, name: str, headers: Mapping[str, str], attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """Begin a request's span, a child of the caller's if its ``traceparent`` can be read."""

    def served(
        self, name: str, traceparent: str | None, attributes: Attributes, seconds: float
    ) -> None:
        """Tell of a request that has just been answered, after ``seconds``."""

    async def close(self) -> None:
        """Tell the rest."""


TRACER: web.AppKey[ServerTracer] = web.AppKey("tracer", ServerTracer)


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Have a span for the request, and in it those of its stages."""
    resource = request.match_info.route.resource
    route = "" if resource is None else resource.canonical
    if route in QUIET:
        return await handler(request)
    method = request.method if request.method in METHODS else "_OTHER"
    attributes: dict[str, str] = {
        "http.request.method": method,
        "url.path": request.path,
        "url.scheme": request.scheme,
        "user_agent.original": request.headers.get("User-Agent", ""),
    }
    if route:
        attributes["http.route"] = route
    name = f"{method} {route}".rstrip()
    with request.app[TRACER].serving(name, request.headers, attributes) as span:
        response = await handler(request)
        span.note(_outcome(request, response))
    return response


def _outcome(request: web.Request, response: web.StreamResponse) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.response.status_code": response.status,
        "http.response.header.x-request-id": [request[REQUEST_ID]],
    }
    address = request.get(ADDRESS, request.remote)
    if address:
        found["client.address"] = address
    if "Cache-Status" in response.headers:
        found["http.response.header.cache-status"] = [response.headers["Cache-Status"]]
    if response.status >= 500:
        found["error.type"] = str(response.status)
    return found


class TracedLane(Lane):
    """A lane with a span for each question that it answers."""

    def __init__(self, tracer: ServerTracer, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._tracer = tracer

    def answer(self, ticket: Ticket, body: bytes, address: str, now: float) -> bytes | None:
        """Answer as the lane does."""
        answer = super().answer(ticket, body, address, now)
        if answer is not None and ticket.route.page is None:
            self._tell(ticket, answer, address, time.monotonic() - now)
        return answer

    def _tell(self, ticket: Ticket, answer: bytes, address: str, seconds: float) -> None:
        plain, route, *_ = ticket
        if plain.forwarded_for is not None and self._proxies:
            address = self._proxies.client(address, plain.forwarded_for.decode("latin-1"))
        status = int(answer[9:12])
        attributes: dict[str, Any] = {
            "http.request.method": "POST",
            "http.route": route.path.decode(),
            "url.path": route.path.decode(),
            "url.scheme": "http",
            "client.address": address,
            "http.response.status_code": status,
            "http.response.header.x-request-id": [_field(answer, b"X-Request-ID")],
        }
        if status >= 500:
            attributes["error.type"] = str(status)
        if cache := _field(answer, b"Cache-Status"):
            attributes["http.response.header.cache-status"] = [cache]
        parent = None if plain.traceparent is None else plain.traceparent.decode("ascii")
        self._tracer.served(f"POST {route.path.decode()}", parent, attributes, seconds)


def _field(answer: bytes, name: bytes) -> str:
    """Return the value of a header that the lane has written."""
    _, _, rest = answer.partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0].decode("ascii")
