"""Errors to responses."""

from __future__ import annotations

from aiohttp import web
from structlog.testing import capture_logs

from ragserve.edge.problem import problem
from tests.edge.test_strict import named
from tests.edge.vectors import get
from tests.edge.wire import two_sides


async def test_a_client_that_has_left_is_no_crash() -> None:
    """A connection that broke under the handler is not logged; one of the handler's own is."""

    async def left(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        raise ConnectionResetError("the client has left")

    async def broken(_request: web.Request) -> web.Response:
        raise ConnectionResetError("something else was reset")

    app = web.Application(middlewares=[named, problem])
    app.router.add_get("/left", left)
    app.router.add_get("/broken", broken)
    async with two_sides(app) as (lane, _):
        with capture_logs() as logs:
            assert (await lane.send([get(path=b"/left")])).answers == ()
        assert logs == []
        with capture_logs() as logs:
            outcome = await lane.send([get(path=b"/broken")])
        assert [answer.status for answer in outcome.answers] == [500]
        assert [entry["event"] for entry in logs] == ["request_crashed"]
