"""Changes take turns at a few of the connections to the database: questions need the others."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from ragserve.flow.admission import Admission
from ragserve.flow.deadline import deadline_after
from ragserve.handlers.services import PRINCIPAL, SERVICES, UNTIL


def check_turn(request: web.Request) -> None:
    """Raise ``Overloaded`` if a change would have to wait for too long: before its body is read."""
    gate = request.app[SERVICES].changes
    Admission([gate]).check(request[PRINCIPAL].tenant, time.monotonic())


@asynccontextmanager
async def turn(request: web.Request) -> AsyncIterator[None]:
    """Wait for a turn and have it; raise ``DeadlineExceeded`` if it would come too late."""
    services = request.app[SERVICES]
    now = time.monotonic()
    budget_s = services.config.server.request_timeout_s
    if UNTIL in request:
        budget_s = min(budget_s, request[UNTIL] - now)
    deadline = deadline_after(budget_s, now)
    async with services.changes.permit(request[PRINCIPAL].tenant, deadline):
        yield
