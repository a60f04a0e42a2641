"""Where spans go: to a collector, which may hang, or be no extra of this installation."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ragserve import __version__
from ragserve.errors import ConfigurationError
from ragserve.tracing import otel
from ragserve.worker.app import tracer_of
from tests.conftest import configured, serving
from tests.upstream.wire import Client, wire


async def test_a_collector_gets_the_spans(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By OTLP over HTTP, where and as the environment says, at the latest when the server ends."""
    got: list[tuple[str, ExportTraceServiceRequest]] = []

    async def collect(request: web.Request) -> web.Response:
        export = ExportTraceServiceRequest.FromString(await request.read())
        got.append((request.headers["X-Team"], export))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", collect)
    async with TestServer(app) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", str(collector.make_url("/")))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=search")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "answers")
        config = configured(tracing__enabled=True)
        async with serving(config, tmp_path, dsn, ingest=False) as api:
            await api.post("/v1/search", {"query": "x", "collection": "none"})
    ((team, export),) = got
    assert team == "search"
    (resource,) = export.resource_spans
    named = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert named["service.name"] == "answers"
    assert named["service.version"] == __version__
    assert named["service.instance.id"].startswith("0-")
    assert [span.name for span in resource.scope_spans[0].spans] == ["POST /v1/search"]


async def test_a_collector_that_hangs_is_not_waited_for(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers as ever, and ends in time."""
    monkeypatch.setattr(otel, "FLUSH_S", 0.1)
    ended = asyncio.Event()

    async def collect(client: Client) -> None:
        await client.request()
        await ended.wait()
        await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await client.gone()

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    async with asyncio.timeout(30), wire(collect) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
        config = configured(tracing__enabled=True)
        async with serving(config, tmp_path, dsn, ingest=False) as api:
            status, _ = await api.post("/v1/search", {"query": "x", "collection": "none"})
            assert status == 404
        ended.set()


def test_the_service_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """ragserve, unless the environment says otherwise."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    assert otel.describe("0-1-a").attributes["service.name"] == "ragserve"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,deployment.environment=test")
    found = otel.describe("0-1-a").attributes
    assert (found["service.name"], found["deployment.environment"]) == ("a", "test")


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enabled without the extra: the error names the extra."""
    monkeypatch.delitem(sys.modules, "ragserve.tracing.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(
        ConfigurationError, match=r"tracing\.enabled: .*pip install 'ragserve\[otel\]'"
    ):
        tracer_of("0-1-a")
