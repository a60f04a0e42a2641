"""Requests without stages are given up when their client does not wait any longer.

Questions see to that themselves, stage by stage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from ragserve.errors import DeadlineExceeded
from ragserve.handlers import PRINCIPAL, UNTIL
from ragserve.handlers.timeout import HEADER, wanted_timeout_s

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STAGED = frozenset({"/v1/query", "/v1/search", "/v1/chat/completions"})


@web.middleware
async def patience(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request as long as ``X-Request-Timeout`` says, if it says so."""
    if HEADER not in request.headers or PRINCIPAL not in request:
        return await handler(request)
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in STAGED:
        return await handler(request)
    wanted_s = wanted_timeout_s(request) or 0.0
    request[UNTIL] = asyncio.get_running_loop().time() + wanted_s
    try:
        async with asyncio.timeout_at(request[UNTIL]) as limit:
            return await handler(request)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceeded(f"{HEADER}: not done within {wanted_s} s") from error
