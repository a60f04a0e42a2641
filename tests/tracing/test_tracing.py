"""Spans of real requests: names, parents, attributes and failures; and nothing at all when off."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from ragserve.tracing import otel
from ragserve.upstream import upstream
from tests.conftest import Api, configured, serving
from tests.embed.scripted import Reply, completion, embeddings, scripted
from tests.generate.test_dictation import STOP, USAGE, WORDS, piece
from tests.handlers.test_ask import OFFICE, TRAVEL
from tests.handlers.test_stream import frames
from tests.retrieve.test_rerank import relevance
from tests.upstream.wire import END, HEAD, Client, Script, replies, said, then, wire
from tests.worker.test_lane import asking as asking_the_lane

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1", "X-Request-ID": "q1"}
QUESTION = {"query": "when is lunch served"}


class Spans:
    """What was exported once the server has ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> list[ReadableSpan]:
        """Return all spans in the order of their beginnings."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self, top: int = int(CALLER, 16)) -> dict[str, Any]:
        """Return the names of all spans below ``top``."""
        return {
            span.name: self.tree(span.context.span_id)
            for span in self.all
            if (span.parent.span_id if span.parent else 0) == top
        }

    def named(self, name: str) -> ReadableSpan:
        """Return the only span of that name."""
        (found,) = (span for span in self.all if span.name == name)
        return found


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """Spans stay in memory instead of going to a collector."""
    spans = Spans()
    monkeypatch.setattr(otel, "OTLPSpanExporter", lambda: spans.exporter)
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)
    return spans


@asynccontextmanager
async def asking(
    script: Script, tmp_path: Path, dsn: str, **settings: object
) -> AsyncIterator[Api]:
    """A traced server whose language model follows the script; it knows when lunch is."""
    async with asyncio.timeout(30), wire(script) as model:
        config = configured(
            tracing__enabled=True,
            llm__base_url=f"http://127.0.0.1:{model.port}/v1",
            llm__model="m",
            **settings,
        )
        async with serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE)
            yield api


async def test_a_question_is_one_trace(spans: Spans, tmp_path: Path, dsn: str) -> None:
    """The caller's trace goes on: request, stages, the model's call, and the model's own server."""
    asked: list[bytes] = []

    async def script(client: Client) -> None:
        asked.append(await client.request())
        await client.send(HEAD + WORDS + STOP + END)
        await client.gone()

    async with asking(script, tmp_path, dsn) as api:
        async with api.client.post("/v1/query", json=QUESTION, headers=HEADERS) as response:
            assert response.status == 200
        port = api.services.config.llm.base_url.split(":")[2].removesuffix("/v1")
    assert spans.tree() == {
        "POST /v1/query": {"embed": {}, "retrieve": {}, "generate": {"chat m": {"POST": {}}}}
    }
    http = spans.named("POST")
    sent = re.search(rb"\r\ntraceparent: (\S+)\r\ntracestate: vendor=1\r\n", asked[0])
    assert sent is not None
    assert sent[1].decode() == f"00-{TRACE}-{http.context.span_id:016x}-01"
    assert http.kind is SpanKind.CLIENT
    assert http.attributes == {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": int(port),
        "url.full": f"http://127.0.0.1:{port}/v1/chat/completions",
    }
    chat = spans.named("chat m")
    assert chat.kind is SpanKind.CLIENT
    assert chat.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m-1",
        "gen_ai.usage.input_tokens": 90,
        "gen_ai.usage.output_tokens": 9,
    }
    request = spans.named("POST /v1/query")
    assert request.kind is SpanKind.SERVER
    assert request.attributes is not None
    assert dict(request.attributes) | {"user_agent.original": "", "client.address": ""} == {
        "http.request.method": "POST",
        "http.route": "/v1/query",
        "url.path": "/v1/query",
        "url.scheme": "http",
        "user_agent.original": "",
        "client.address": "",
        "http.response.status_code": 200,
        "http.response.header.x-request-id": ("q1",),
        "http.response.header.cache-status": ("ragserve; fwd=miss; stored",),
    }
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}
    assert not any("lunch" in str(span.to_json()) for span in spans.all)


async def test_what_is_passed_on_tells_its_tokens(spans: Spans, tmp_path: Path, dsn: str) -> None:
    """A client's own request to the model: what it cost is known when its stream is over."""
    told = piece(finish="stop", usage=USAGE)

    async def script(client: Client) -> None:
        await client.request()
        await client.send(HEAD + WORDS + said(told) + END)
        await client.gone()

    async with asking(script, tmp_path, dsn) as api:
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with api.client.post("/v1/chat/completions", json=chat) as response:
            assert b"[DONE]" in await response.read()
    attributes = spans.named("chat m").attributes or {}
    assert attributes["gen_ai.usage.input_tokens"] == USAGE["prompt_tokens"]
    assert attributes["gen_ai.usage.output_tokens"] == USAGE["completion_tokens"]


async def test_who_joins_a_flight_computes_nothing(spans: Spans, tmp_path: Path, dsn: str) -> None:
    """Of two who ask the same at once one has stages; the other's span says that it shared them."""
    began, both_here = asyncio.Event(), asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        began.set()
        await both_here.wait()
        await client.send(HEAD + WORDS + STOP + END)
        await client.gone()

    async def ask(api: Api) -> int:
        async with api.client.post("/v1/query", json=QUESTION) as response:
            return response.status

    async with asking(script, tmp_path, dsn) as api:
        first = asyncio.create_task(ask(api))
        await began.wait()
        second = asyncio.create_task(ask(api))
        while api.services.in_flight.count < 2:  # noqa: ASYNC110 - the server's own count
            await asyncio.sleep(0)
        both_here.set()
        assert await asyncio.gather(first, second) == [200, 200]
    one, other = (span for span in spans.all if span.name == "POST /v1/query")
    assert set(spans.tree(one.context.span_id)) == {"embed", "retrieve", "generate"}
    assert spans.tree(other.context.span_id) == {}
    assert other.attributes is not None
    assert other.attributes["http.response.header.cache-status"] == (
        "ragserve; fwd=miss; collapsed",
    )


async def test_every_model_that_is_asked_has_a_span(spans: Spans, tmp_path: Path, dsn: str) -> None:
    """Embedder, reranker and a client's own model beside the one that answers, by GenAI names."""

    def models(asked: Any) -> Reply:
        if "input" in asked:
            return embeddings(dimensions=8)(asked)
        if "documents" in asked:
            return relevance(asked)
        return completion("At noon [1].")

    async with asyncio.timeout(30), scripted(models) as server:
        config = configured(
            tracing__enabled=True,
            embedding__provider="openai",
            embedding__base_url=server.base_url,
            embedding__model="e",
            rerank__base_url=server.base_url,
            rerank__model="r",
            llm__base_url=server.base_url,
            llm__model="m",
            answer__min_similarity=-1,
        )
        async with serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE, TRAVEL)
            spans.exporter.clear()
            async with api.client.post("/v1/query", json=QUESTION, headers=HEADERS) as response:
                assert response.status == 200
            chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
            path = "/v1/chat/completions"
            async with api.client.post(path, json=chat, headers=HEADERS) as response:
                assert response.status == 200
    assert spans.tree() == {
        "POST /v1/query": {
            "embed": {"embeddings e": {"POST": {}}},
            "retrieve": {},
            "rerank": {"rerank r": {"POST": {}}},
            "generate": {"chat m": {"POST": {}}},
        },
        "POST /v1/chat/completions": {"chat m": {"POST": {}}},
    }
    for span in spans.all:
        operation, _, model = span.name.partition(" ")
        if operation not in ("embeddings", "rerank", "chat") or not model:
            continue
        assert span.kind is SpanKind.CLIENT
        assert span.attributes is not None
        assert span.attributes["gen_ai.operation.name"] == operation
        assert span.attributes["gen_ai.request.model"] == model
        assert span.attributes["gen_ai.provider.name"] == "openai"


async def test_failures_are_marked_where_they_happen(
    spans: Spans, tmp_path: Path, dsn: str
) -> None:
    """Each attempt and the call as a whole have failed; the request has not: it was answered."""
    refused = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"
    async with (
        asking(replies(refused, refused), tmp_path, dsn, llm__attempts=2) as api,
        api.client.post("/v1/query", json=QUESTION, headers=HEADERS) as response,
    ):
        assert response.status == 200
    failed = [span for span in spans.all if span.status.status_code is StatusCode.ERROR]
    assert [span.name for span in failed] == ["chat m", "POST", "POST"]
    for span in failed:
        assert span.attributes is not None
        assert span.attributes["error.type"] == "server"
        assert span.status.description is not None
        assert "status 500: oops" in span.status.description


async def test_a_stream_that_breaks_is_a_failed_request(
    spans: Spans, tmp_path: Path, dsn: str
) -> None:
    """Its head said 200 before anybody knew; the span says what came of it."""
    script = then(HEAD + said(piece("At 100")), reset=True)
    async with (
        asking(script, tmp_path, dsn) as api,
        api.client.post("/v1/query", json={**QUESTION, "stream": True}) as response,
    ):
        assert [name async for name, _ in frames(response)] == ["sources", "delta", "error"]
    request = spans.named("POST /v1/query")
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["error.type"] == "closed"
    assert request.status.status_code is StatusCode.ERROR


async def test_an_error_of_the_clients_is_no_failure(
    spans: Spans, tmp_path: Path, dsn: str
) -> None:
    """A 404 is an answer; a path that does not exist names no route; probes have no spans."""
    config = configured(tracing__enabled=True)
    async with serving(config, tmp_path, dsn, ingest=False) as api:
        assert (await api.post("/v1/search", {"query": "x", "collection": "none"}))[0] == 404
        assert (await api.get("/no/such/path"))[0] == 404
        assert (await api.get("/health"))[0] == 200
    assert [span.name for span in spans.all if span.kind is SpanKind.SERVER] == [
        "POST /v1/search",
        "GET",
    ]
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}


async def test_the_express_lane_tells_of_its_answers(
    spans: Spans, tmp_path: Path, dsn: str
) -> None:
    """A kept answer's span has the caller's trace, its own length and no stages."""
    async with asking_the_lane(tmp_path, dsn, tracing__enabled=True) as (server, session):
        url = f"{server.url}/v1/search"
        for headers in ({}, HEADERS):
            async with session.post(url, json=QUESTION, headers=headers) as response:
                assert response.status == 200
        async with session.get(f"{server.url}/ready") as response:
            assert response.status == 200
    assert spans.tree() == {"POST /v1/search": {}}
    span = spans.all[-1]
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["http.response.header.x-request-id"] == ("q1",)
    assert span.attributes["client.address"] == "127.0.0.1"
    (status,) = span.attributes["http.response.header.cache-status"]  # type: ignore[misc,union-attr]
    assert status == "ragserve; hit; detail=memory"
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < span.end_time - span.start_time < 1e9


async def test_the_express_lane_tells_of_its_refusals(
    spans: Spans, tmp_path: Path, dsn: str
) -> None:
    """The span of a request over its limit is the ordinary path's: no failure, no cache asked."""
    settings = {"tracing__enabled": True, "rate__search_per_minute": 1}
    async with asking_the_lane(tmp_path, dsn, **settings) as (server, session):
        async with session.post(f"{server.plain_url}/v1/search", json=QUESTION) as response:
            assert response.status == 200
        for url in (server.url, server.plain_url):
            async with session.post(f"{url}/v1/search", json=QUESTION, headers=HEADERS) as response:
                assert response.status == 429
    lane, ordinary = (dict(span.attributes or {}) for span in spans.all[-2:])
    assert lane["http.response.status_code"] == 429
    assert lane == {name: ordinary[name] for name in ordinary if name != "user_agent.original"}
    assert {span.status.status_code for span in spans.all} == {StatusCode.UNSET}
