"""An answer in the making, told to one client: from its first event to whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from ragserve.errors import Unavailable
from ragserve.handlers.failure import describe
from ragserve.handlers.services import REQUEST_ID, SERVICES
from ragserve.handlers.sse import KEEP_ALIVE, EventStream
from ragserve.metrics import STREAMS
from ragserve.schema import ErrorResponse
from ragserve.tracing import note_failure

R = TypeVar("R")


async def stream(
    request: web.Request,
    events: EventStream,
    answering: Coroutine[Any, Any, R],
    last: Callable[[R], bytes],
    headers: Callable[[], dict[str, str]] = dict,
    *,
    failure: Callable[[ErrorResponse], bytes],
) -> web.StreamResponse:
    """Send ``events`` while ``answering`` runs, then the ``last`` frames made of its result.

    A failure before the first event is raised, to become an ordinary error response; a later one
    becomes the stream's last frame, made by ``failure``. ``headers`` are asked for when the first
    event is there. If that takes longer than a stream may be silent, the stream begins without it.
    A client that leaves cancels ``answering``.
    """
    services = request.app[SERVICES]
    task = asyncio.ensure_future(answering)
    result = "left"
    try:
        waited: set[asyncio.Future[Any]] = {task, events.started}
        keepalive_s = services.config.stream.keepalive_s
        done, _ = await asyncio.wait(
            waited, timeout=keepalive_s, return_when=asyncio.FIRST_COMPLETED
        )
        if done == {task}:
            await task
        response = await events.begin(headers())
        if not done:
            events.send(KEEP_ALIVE)
        with services.streams.under_way(task):
            result = await _finish(request, events, task, last, failure)
        await events.end()
        return response
    finally:
        STREAMS.labels(result).inc()
        events.close()
        task.cancel()


async def _finish(
    request: web.Request,
    events: EventStream,
    task: asyncio.Task[R],
    last: Callable[[R], bytes],
    failure: Callable[[ErrorResponse], bytes],
) -> str:
    """Wait for the result and send it, or what prevented it; return which."""
    await asyncio.wait({task})
    try:
        if task.cancelled():
            # Not by the client: then this coroutine would not have got here.
            raise Unavailable("stream: the server is stopping; ask again")
        events.send(last(task.result()))
    except Exception as error:  # noqa: BLE001 - described to the client and logged
        events.send(failure(describe(error, request[REQUEST_ID])))
        note_failure(error)
        return "failed"
    return "finished"
