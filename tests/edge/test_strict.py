"""What is no request gets one refusal and a closed connection, whatever aiohttp makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from ragserve.edge.problem import problem
from ragserve.handlers import REQUEST_ID
from tests.edge.vectors import MALFORMED, PLAIN, UNUSUAL, get, post
from tests.edge.wire import Side, echo, turns, two_sides

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LENIENT = {"two spaces"}
"""RFC 9112, 3: white space in a request line may be read as one space; the path is the same."""
ONE_GOOD = {"good, then malformed"}
WAITS = {"short body, then a request"}
"""Nobody can tell that this body is not a long one."""


@web.middleware
async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[REQUEST_ID] = "1"
    return await handler(request)


@pytest.fixture
async def lane() -> AsyncIterator[Side]:
    """The lane before an application that refuses what is not plain."""
    app = web.Application(middlewares=[named, problem])
    app.router.add_route("*", "/{path:.*}", echo)
    async with two_sides(app) as (with_lane, _):
        yield with_lane


def dropped(reason: str) -> float:
    return REGISTRY.get_sample_value("ragserve_clients_dropped_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize("name", sorted(set(MALFORMED) - LENIENT - ONE_GOOD - WAITS))
async def test_what_is_malformed_is_refused_once(
    lane: Side, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One 4xx, then the connection is closed; what follows is not read, and nothing is logged."""
    for segments in ([MALFORMED[name]], [get(), MALFORMED[name]], [MALFORMED[name], get()]):
        counted = dropped("malformed") + dropped("long")
        outcome = await lane.send(segments)
        assert dropped("malformed") + dropped("long") == counted + 1
        before = 1 if segments[0] == get() else 0
        statuses = [answer.status for answer in outcome.answers]
        assert statuses[:before] == [200] * before
        assert len(statuses) == before + 1, statuses
        assert 400 <= statuses[-1] < 500, statuses
        assert outcome.closed
    loud = [record for record in caplog.records if record.levelname != "DEBUG"]
    assert not loud, "anybody could fill the log"


async def test_a_good_request_before_a_malformed_one_is_answered_at_most(lane: Side) -> None:
    """The good one may get its answer; the other is refused, and that is the end."""
    for name in ONE_GOOD:
        outcome = await lane.send([MALFORMED[name]])
        assert [answer.status for answer in outcome.answers] in ([400], [200, 400])
        assert outcome.closed


@pytest.mark.parametrize("name", sorted((PLAIN | UNUSUAL).keys() - {"gzip", "pipeline with close"}))
async def test_what_is_legal_is_answered(lane: Side, name: str) -> None:
    """No legal head is refused.

    Left out: a body that is no gzip, and bytes after a close, for which aiohttp refuses everything.
    """
    outcome = await lane.send([(PLAIN | UNUSUAL)[name]])
    statuses = {answer.status for answer in outcome.answers}
    assert 200 in statuses or name == "asterisk", statuses
    assert statuses <= {100, 200, 404}, statuses


WHOLE = b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n"
REFUSED = {
    "no version": b"GET /ready \r\n\r\n",
    "brackets in a name": get(b"X-Invalid[]: test"),
    "no host, but a length": b"GET /ready HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    "two hosts": get(b"Host: b"),
    "a very negative length": get(b"Content-Length: -123456789123456789123456789"),
    "a negative length": get(b"Content-Length: -1234"),
    "a length in letters": get(b"Content-Length: abc"),
    "a control character": get(b"X-Bad: test\x07"),
    "HTTP/9.9": WHOLE.replace(b"1.1", b"9.9"),
    "words before the method": b"Extra line" + WHOLE,
    "CR without LF": b"GET /ready HTTP/1.1\r\nHost: a\r\n\rSome-Header: Test\r\n\r\n",
    "chunked and a length": get(b"Transfer-Encoding: chunked", b"Content-Length: 5"),
}
ANSWERED = {
    "a plain GET": (WHOLE, [200]),
    "odd case, tab, empty value": (
        b"GET /a HTTP/1.1\r\nhoSt:\texample.com\r\nempty:\r\n\r\n",
        [200],
    ),
    "an empty value": (get(b"X-Empty-Header: "), [200]),
    "a POST with a body": (post(b"hello"), [200]),
    "Expect": (get(b"Expect: 100-continue"), [100, 200]),
}
# The cases of h1spec (uNetworking), in its order: 15 beginnings of a request, then 18 whole ones.
BEGINNINGS = [WHOLE[:end] for end in (1, 4, 10, 11, 15, 19, 20, 21, 24, 26, 27, 36, 37, 38, 39)]


@pytest.mark.parametrize("data", BEGINNINGS)
async def test_the_rest_of_a_request_is_waited_for(lane: Side, data: bytes) -> None:
    """A beginning gets no answer and no end, and the whole one gets its answer later."""
    wire = lane.connect()
    await turns()
    wire.protocol.data_received(data)
    await turns()
    assert (bytes(wire.written), wire.closed) == (b"", False)
    wire.protocol.data_received(WHOLE[len(data) :])
    while not wire.written:
        await turns()
    assert wire.written.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", REFUSED)
async def test_h1spec_refused(lane: Side, name: str) -> None:
    """A 4xx or 5xx, and the end."""
    outcome = await lane.send([REFUSED[name]])
    assert [400 <= answer.status < 600 for answer in outcome.answers] == [True]
    assert outcome.closed


@pytest.mark.parametrize("name", ANSWERED)
async def test_h1spec_answered(lane: Side, name: str) -> None:
    """Each has its answer."""
    data, expected = ANSWERED[name]
    outcome = await lane.send([data])
    assert [answer.status for answer in outcome.answers] == expected


@pytest.mark.parametrize("early", [True, False])
async def test_a_client_that_asks_whether_to_go_on(lane: Side, early: bool) -> None:
    """Expect: 100-continue, with its body at once or after the 100: that, then one answer."""
    data = post(b'{"query":"a"}', b"Expect: 100-continue")
    end = data.index(b"\r\n\r\n") + 4
    segments = [data] if early else [data[:end], data[end:]]
    outcome = await lane.send([*segments, get()])
    assert [answer.status for answer in outcome.answers] == [100, 200, 200]


LONG = {
    "target": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "field": get(b"X-Long: " + b"a" * 9000),
    "field name": get(b"a" * 9000 + b": x"),
}


@pytest.mark.parametrize("name", LONG)
async def test_a_head_that_is_too_long_is_counted_as_such(lane: Side, name: str) -> None:
    """It is refused once, whichever line is too long."""
    long, malformed = dropped("long"), dropped("malformed")
    outcome = await lane.send([LONG[name]])
    assert [answer.status for answer in outcome.answers] == [400]
    assert outcome.closed
    assert (dropped("long"), dropped("malformed")) == (long + 1, malformed)
