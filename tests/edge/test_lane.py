from __future__ import annotations

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from ragserve.cache.prepared import Prepared
from ragserve.config import LogConfig
from ragserve.edge.express import parse_plain
from ragserve.edge.lane import Lane, Questions
from ragserve.edge.quota import Exhausted
from ragserve.flow.principal import OWNER, Principal
from ragserve.schema import Scope
from tests.edge.vectors import get, post
from tests.edge.wire import OPEN, Echo, Strict, exhausted, make_lane


def answer_to(lane: Lane, data: bytes) -> bytes | None:
    ticket = ticket_of(lane, data)
    if ticket is None:
        return None
    return lane.answer(ticket, data.partition(b"\r\n\r\n")[2], "::1", 0.0)  # type: ignore[arg-type]


def status_of(lane: Lane, data: bytes) -> int | None:
    answer = answer_to(lane, data)
    return None if answer is None else int(answer[9:12])


def ticket_of(lane: Lane, data: bytes) -> object:
    plain = parse_plain(data[: data.find(b"\r\n\r\n") + 4])
    assert plain is not None
    return lane.ticket(plain)


@pytest.mark.parametrize(
    "line",
    [
        b"Cache-Control: no-cache",
        b"Cache-Control: only-if-cached",
        b"Pragma: no-cache",
        b"Origin: https://a",
        b"Accept: text/event-stream",
        b"Accept: application/json, Text/Event-Stream",
    ],
)
def test_headers_that_may_change_the_answer_are_passed_on(line: bytes) -> None:
    """The lane does not answer them; with any other header it does."""
    assert status_of(make_lane(), post(b"{}", line)) is None
    assert status_of(make_lane(), post(b"{}", b"X-" + line)) == 200


def test_only_json_is_a_question() -> None:
    """Another type, or none, is for the handler to judge; so are bodies where none belongs."""
    lane = make_lane()
    for kind in (b"text/plain", b"application/json; charset=latin-1", b""):
        data = post(b"{}").replace(b"application/json", kind)
        assert status_of(lane, data) is None
    assert status_of(lane, post(b"")) is None
    assert status_of(lane, get(b"Content-Length: 2")) is None
    data = post(b"{}").replace(b"application/json", b"application/JSON; charset=UTF-8")
    assert status_of(lane, data) == 200


@pytest.mark.parametrize(
    "data",
    [
        post(b"{}"),
        post(b"?"),
        post(b""),
        post(b"not JSON"),
        post(b"{}").replace(b"application/json", b"text/plain"),
        post(b"{}", b"Cache-Control: no-cache"),
        post(b"{}", b"Accept: text/event-stream"),
        post(b"{}", path=b"/v1/chat/completions"),
    ],
)
def test_over_a_limit_whatever_is_asked_is_refused(data: bytes) -> None:
    """Kept or not, answerable here or not: the limit comes first, as in the ordinary path."""
    lane = make_lane(Strict())
    with_id = data.replace(b"Host: a\r\n", b"Host: a\r\nX-Request-ID: a\r\n")
    head, _, body = (answer_to(lane, with_id) or b"").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 429 Too Many Requests"
    assert {b"Retry-After: 2", b"X-Request-ID: a", b'RateLimit: "query";r=0;t=60'} <= set(lines)
    assert json.loads(body)["error"] == {
        "message": "try again in 1.5 s",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
        "request_id": "a",
    }


def test_who_was_over_a_limit_is_asked_about_that_first() -> None:
    """In a flood no answer is looked for; once there is a token again there is one."""
    tokens, looks = [0, 0, 0, 1, 1], []

    class Flooded(Echo):
        def try_take(self, *_: object) -> Flooded | None:  # type: ignore[override]
            return self if tokens[0] else None

        def try_refuse(self, *_: object) -> Exhausted | None:
            return None if tokens[0] else exhausted()

        def try_prepared(self, *arguments: Any) -> Prepared | None:
            looks.append(arguments)
            return super().try_prepared(*arguments)

    lane = make_lane(Flooded())
    seen = []
    while tokens:
        seen.append((status_of(lane, post(b"{}")), len(looks)))
        tokens.pop(0)
    assert seen == [(429, 1), (429, 1), (429, 1), (200, 2), (200, 3)]


def test_only_those_who_may_ask_are_told_of_a_limit() -> None:
    """An unknown credential, another scope, a page: the ordinary path knows what to say."""

    class Ingesting(Strict):
        def try_known(self, *_: object) -> Principal:
            return Principal("k", "default", frozenset[Scope](["ingest"]))

    assert status_of(make_lane(Strict()), post(b"{}", b"Authorization: unknown")) is None
    assert status_of(make_lane(Ingesting()), post(b"{}")) is None
    assert status_of(make_lane(Strict()), get()) == 200


def test_a_key_for_some_collections_is_refused_but_not_answered() -> None:
    """Which collection is asked the lane does not know, and it does not matter to a limit."""
    some = Principal("k", "default", frozenset[Scope](["query"]), collections=frozenset({"a"}))

    class Some(Echo):
        def try_known(self, *_: object) -> Principal:
            return some

    class Limited(Strict):
        def try_known(self, *_: object) -> Principal:
            return some

    assert status_of(make_lane(Some()), post(b"{}")) is None
    assert status_of(make_lane(Limited()), post(b"{}")) == 429


def test_what_is_not_known_draws_no_tokens() -> None:
    """A request that is passed on is counted there, once."""
    taken = []

    class Counting(Echo):
        def try_take(self, *arguments: object) -> Echo | None:  # type: ignore[override]
            taken.append(arguments)
            return self if len(taken) < 2 else None

        def give_back(self, *arguments: object) -> None:
            taken.pop()

    known = Counting()
    questions = Questions({"/v1/query": ("query", OPEN)}, known, known, known)
    lane = Lane(LogConfig(access=False), lambda: True, {}, questions)
    for data, answered, drawn in (
        (post(b"?"), False, 0),
        (post(b"{}", b"Authorization: unknown"), False, 0),
        (post(b"{}"), True, 1),
        (post(b"{}"), False, 2),
    ):
        ticket = ticket_of(lane, data)
        answer = lane.answer(ticket, data.partition(b"\r\n\r\n")[2], "::1", 0.0)  # type: ignore[arg-type]
        assert (answer is not None, len(taken)) == (answered, drawn)
    assert taken[0] == (OWNER, "::1", "query", 0.0)


@pytest.mark.parametrize(("wait_s", "status"), [(0.0, None), (1.2, 503)])
def test_at_the_limit_what_is_not_in_memory_is_refused(wait_s: float, status: int | None) -> None:
    """A kept answer is given all the same; the refusal says when to come back."""

    class Busy:
        def refusal(self, tenant: str, now: float) -> float:
            return wait_s

        def let_in(self, tenant: str, now: float) -> None:
            assert not wait_s

    known = Echo()
    questions = Questions({"/v1/query": ("query", Busy())}, known, known, known)
    lane = Lane(LogConfig(access=False), lambda: True, {}, questions)
    kept = lane.answer(ticket_of(lane, post(b"{}")), b"{}", "::1", 0.0)  # type: ignore[arg-type]
    assert kept is not None
    assert kept.startswith(b"HTTP/1.1 200 ")
    ticket = ticket_of(lane, post(b"?", b"X-Request-ID: a"))
    answer = lane.answer(ticket, b"?", "::1", 0.0)  # type: ignore[arg-type]
    if status is None:
        assert answer is None
        return
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert {b"Retry-After: 2", b"X-Request-ID: a", b"RateLimit: 1"} <= set(lines)
    error = json.loads(body)["error"]
    assert error["request_id"] == "a"
    assert (error["type"], error["code"]) == ("overloaded_error", "overloaded")
    assert error["message"] == "the server is at its limit; try again in 2 s"


def test_what_is_neither_kept_nor_refused_gets_its_token_back() -> None:
    """The ordinary path counts it; what is refused for the server's sake stays counted.

    The entrance is told of what it will see there.
    """
    waits = [0.0, 1.0]
    counted: list[str] = []

    class Sometimes:
        def refusal(self, tenant: str, now: float) -> float:
            return waits.pop(0)

        def let_in(self, tenant: str, now: float) -> None:
            counted.append("in")

    class Counting(Echo):
        def try_take(self, *_: object) -> Counting:
            counted.append("taken")
            return self

        def give_back(self, *_: object) -> None:
            counted.append("back")

    known = Counting()
    questions = Questions({"/v1/query": ("query", Sometimes())}, known, known, known)
    lane = Lane(LogConfig(access=False), lambda: True, {}, questions)
    assert [status_of(lane, post(b"?")) for _ in range(2)] == [None, 503]
    assert counted == ["taken", "back", "in", "taken"]


def test_a_closed_lane_answers_nothing() -> None:
    """While the worker starts or drains, everything is aiohttp's."""
    ready = make_lane()._routes[b"/ready"].page
    assert ready is not None
    phase = ["starting"]
    lane = Lane(LogConfig(access=False), lambda: phase[0] == "ready", {"/ready": ready})
    ticket = ticket_of(lane, get())
    assert lane.answer(ticket, b"", "::1", 0.0) is None  # type: ignore[arg-type]
    assert repr(lane) == "<Lane closed, 0 heads known>"
    phase[0] = "ready"
    assert lane.answer(ticket, b"", "::1", 0.0) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(("known", "status"), [(Echo(), 200), (Strict(), 429)])
@pytest.mark.parametrize(("sample", "lines"), [(1, 12), (5, 2), (100, 0)])
def test_the_access_log_is_sampled(sample: int, lines: int, known: Echo, status: int) -> None:
    """One line for so many answers, refusals, too, which says so; probes are never logged."""
    lane = Lane(
        LogConfig(access_sample=sample),
        lambda: True,
        {"/ready": make_lane()._routes[b"/ready"].page},  # type: ignore[dict-item]
        Questions({"/v1/query": ("query", OPEN)}, known, known, known),
    )
    with capture_logs() as logs:
        for data in [post(b"{}", b"X-Request-ID: a"), get()] * 12:
            lane.answer(ticket_of(lane, data), b"", "::1", 0.0)  # type: ignore[arg-type]
    assert len(logs) == lines
    for line in logs:
        del line["ms"]
        assert line == {
            "event": "request",
            "log_level": "info",
            "request_id": "a",
            "method": "POST",
            "path": "/v1/query",
            "status": status,
            "remote": "::1",
            "sample": sample,
        }
