"""An answer in the making, told to one client: from its first event to whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ragserve.errors import Unavailable
from ragserve.handlers.failure import describe
from ragserve.handlers.services import REQUEST_ID, SERVICES
from ragserve.handlers.sse import EventStream
from ragserve.metrics import STREAMS

E = TypeVar("E")
R = TypeVar("R")


async def stream(
    request: web.Request,
    events: EventStream[E],
    answering: Coroutine[Any, Any, R],
    last: Callable[[R], bytes],
    headers: Callable[[], dict[str, str]] = dict,
) -> web.StreamResponse:
    """Send ``events`` while ``answering`` runs, then the ``last`` frames made of its result.

    A failure before the first event is raised, to become an ordinary error response; a later one
    becomes the stream's last event. ``headers`` are asked for when the first event is there. A
    client that leaves cancels ``answering``.
    """
    streams = request.app[SERVICES].streams
    task = asyncio.ensure_future(answering)
    result = "left"
    try:
        waited: set[asyncio.Future[Any]] = {task, events.started}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not events.started.done():
            await task
        response = await events.begin(headers())
        with streams.under_way(task):
            result = await _finish(request, events, task, last)
        await events.end()
        return response
    finally:
        STREAMS.labels(result).inc()
        events.close()
        task.cancel()


async def _finish(
    request: web.Request,
    events: EventStream[E],
    task: asyncio.Task[R],
    last: Callable[[R], bytes],
) -> str:
    """Wait for the result and send it, or what prevented it; return which."""
    await asyncio.wait({task})
    try:
        if task.cancelled():
            # Not by the client: then this coroutine would not have got here.
            raise Unavailable("stream: the server is stopping; ask again")
        events.send(last(task.result()))
    except Exception as error:  # noqa: BLE001 - described to the client and logged
        body = msgspec.json.encode(describe(error, request[REQUEST_ID]))
        events.send(b"event: error\ndata: " + body + b"\n\n")
        return "failed"
    return "finished"
