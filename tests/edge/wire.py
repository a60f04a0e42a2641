"""aiohttp with and without the express lane, in memory: bytes in, answers out, no sockets."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import h11
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ragserve.cache.prepared import Prepared, prepare_json
from ragserve.config import LogConfig
from ragserve.edge.lane import Lane, Questions
from ragserve.edge.problem import problem
from ragserve.edge.protocol import Connection
from ragserve.edge.quota import Exhausted
from ragserve.edge.ratelimit import tell
from ragserve.edge.request_id import REQUEST_IDS
from ragserve.flow.admission import Admission
from ragserve.flow.bucket import Decision
from ragserve.flow.principal import OWNER, Principal, credential_of
from ragserve.handlers import DECISION, REQUEST_ID

TURNS = 12
"""Turns of the loop that aiohttp needs for a request whose handler never waits, and some more."""
VARYING = frozenset({b"date", b"x-request-id", b"age", b"ratelimit"})
MADE_UP_ID = re.compile(rb'"request_id":"[0-9a-f]{16}"')
OTHERS = {"/v1/chat/completions": "query"}


class Answer(NamedTuple):
    """A response without what differs between any two."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Outcome(NamedTuple):
    """All that a client sees."""

    answers: tuple[Answer, ...]
    closed: bool


OPEN = Admission(())
"""An entrance that refuses nobody."""


class Echo:
    """Authenticator, limiter and cache of a lane that says what it was asked, like ``echo``."""

    tenant = "default"
    headers = b"RateLimit: 1\r\n"

    def try_known(self, credential: bytes | None, address: str, now: float) -> Principal | None:
        """Know everybody but who has the key ``unknown``."""
        return None if credential == credential_of(b"unknown") else OWNER

    def try_take(self, principal: Any, address: str, route_class: str, now: float) -> Echo | None:
        """Let everybody pass."""
        return self

    def try_refuse(
        self, principal: Any, address: str, route_class: str, now: float
    ) -> Exhausted | None:
        """Know nobody who is over a limit."""
        return None

    def give_back(self, principal: Any, address: str, route_class: str) -> None:
        """Take note of nothing."""

    def try_prepared(self, tenant: str, path: bytes, body: bytes, now: float) -> Prepared | None:
        """Know every question but those that begin with ``?``."""
        if body.startswith(b"?"):
            return None
        return prepare_json(said("POST", path.decode(), body))


class Strict(Echo):
    """Says that everybody is over a limit, like ``refuse``."""

    def try_take(self, *_: object) -> None:
        """Let nobody pass."""

    def try_refuse(self, *_: object) -> Exhausted:
        """Know that."""
        return exhausted()


def exhausted() -> Exhausted:
    """Return a refusal."""
    lines = b'RateLimit: "query";r=0;t=60\r\nx-ratelimit-remaining-requests: 0\r\n'
    return Exhausted("try again in 1.5 s", 1.5, Decision(lines))


def said(method: str, path: str, body: bytes) -> dict[str, object]:
    """Return what was asked: two servers that frame a request differently differ in this."""
    return {
        "method": method,
        "path": path,
        "length": len(body),
        "digest": hashlib.md5(body, usedforsecurity=False).hexdigest(),
    }


async def echo(request: web.Request) -> web.Response:
    """Answer with what was asked; for ``/unread`` without reading it."""
    body = b"" if request.path == "/unread" else await request.read()
    prepared = prepare_json(said(request.method, request.path_qs, body))
    return web.Response(body=prepared.body, content_type="application/json")


@web.middleware
async def refuse(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse every question."""
    if request.method == "POST" and request.path_qs in {"/v1/query", *OTHERS}:
        error = exhausted()
        request[DECISION] = error.decision
        raise error
    response: web.StreamResponse = await handler(request)
    return response


@web.middleware
async def identified(request: web.Request, handler: Any) -> web.StreamResponse:
    """Give the request its id."""
    request[REQUEST_ID] = REQUEST_IDS.text(request.headers.get("X-Request-ID", ""))
    response: web.StreamResponse = await handler(request)
    return response


def make_lane(known: Echo | None = None) -> Lane:
    """Return a lane that echoes what is posted to /v1/query, and ``/ready``."""
    known = known or Echo()
    ready = prepare_json(said("GET", "/ready", b""))
    return Lane(
        LogConfig(access=False),
        lambda: True,
        {"/ready": lambda _: ready},
        Questions({"/v1/query": ("query", OPEN)}, known, known, known, OTHERS),
    )


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self, protocol: RequestHandler) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.protocol = protocol
        self.written = bytearray()
        self.closed = False
        self.paused = False

    def write(self, data: Any) -> None:
        """Keep ``data``."""
        self.written += data

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Keep all of it."""
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        """Return whether one side has closed."""
        return self.closed

    def close(self) -> None:
        """Close, and tell the protocol in the next turn."""
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Have the client wait."""
        self.paused = True

    def resume_reading(self) -> None:
        """Go on."""
        self.paused = False


class Side:
    """One of the two servers. ``lane`` is None for plain aiohttp."""

    def __init__(self, server: web.Server, lane: Lane | None) -> None:
        self.server = server
        self.lane = lane

    def connect(self) -> Wire:
        """Return a new client's connection."""
        protocol: RequestHandler
        if self.lane is None:
            protocol = self.server()
        else:
            loop = asyncio.get_running_loop()
            protocol = Connection(self.server, self.lane, loop=loop, **self.server._kwargs)
        wire = Wire(protocol)
        protocol.connection_made(wire)
        return wire

    async def send(self, segments: Iterable[bytes], *, at_once: bool = False) -> Outcome:
        """Send segments over a new connection, in one turn or each in its own."""
        wire = self.connect()
        await turns()
        for segment in segments:
            if wire.closed:
                break
            wire.protocol.data_received(segment)
            if not at_once:
                await turns()
            while wire.paused and not wire.closed:
                await turns()
        # Pipelined requests are answered one after another.
        before = -1
        while before != len(wire.written):
            before = len(wire.written)
            await turns()
        outcome = Outcome(read_answers(bytes(wire.written)), wire.closed)
        wire.close()
        await turns()
        return outcome


async def turns(count: int = TURNS) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def two_sides(
    app: web.Application | None = None, *, limited: bool = False
) -> AsyncIterator[tuple[Side, Side]]:
    """Yield the same application with and without the lane; ``limited`` ones refuse questions."""
    if app is None:
        middlewares = [identified, problem, refuse] if limited else []
        app = web.Application(client_max_size=2**20, middlewares=middlewares)
        app.on_response_prepare.append(tell)
        app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    server = runner.server
    assert server is not None
    try:
        yield Side(server, make_lane(Strict() if limited else None)), Side(server, None)
    finally:
        await runner.cleanup()


def read_answers(data: bytes) -> tuple[Answer, ...]:
    """Return the responses in ``data``, read by a client that knows neither server."""
    answers: list[Answer] = []
    while data:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        client.receive_data(data)
        body = b""
        head: h11.Response | None = None
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.InformationalResponse):
                answers.append(Answer(event.status_code, (), b""))
            elif event is h11.NEED_DATA and head is not None and _until_close(head):
                client.receive_data(b"")
            elif event is h11.NEED_DATA and head is None and answers:
                return tuple(answers)
            else:
                raise AssertionError(f"half an answer: {data!r}")
        assert head is not None
        body = MADE_UP_ID.sub(b"", body)
        headers = sorted((name, value) for name, value in head.headers if name not in VARYING)
        answers.append(Answer(head.status_code, tuple(headers), body))
        data = client.trailing_data[0]
    return tuple(answers)


def _until_close(head: h11.Response) -> bool:
    return not {b"content-length", b"transfer-encoding"} & {name for name, _ in head.headers}
