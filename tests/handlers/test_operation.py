"""Collections, health, metrics and the API's description."""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path

from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from ragserve.config import Config
from ragserve.handlers.health import health
from tests.conftest import Api, configured, serving


async def test_collections_have_a_language(api: Api) -> None:
    """A collection's language decides how its words are found; it cannot change later."""
    status, created = await api.post("/v1/collections", {"name": "buch", "language": "de"})
    assert (status, created["language"], created["documents"]) == (201, "de", 0)
    assert (await api.post("/v1/collections", {"name": "buch"}))[0] == 201
    status, answer = await api.post("/v1/collections", {"name": "buch", "language": "en"})
    assert (status, answer["error"]["param"]) == (409, "language")
    await api.ingest({"id": "a", "text": "Die Häuser am See"}, collection="buch")
    _, found = await api.post(
        "/v1/search", {"query": "haus", "collection": "buch", "mode": "lexical"}
    )
    assert [result["document_id"] for result in found["results"]] == ["a"]


async def test_chinese_and_japanese_are_found(api: Api) -> None:
    """Words of scripts without spaces are found inside sentences."""
    await api.ingest(
        {"id": "ja", "text": "社員食堂は十二時に開きます。"},
        {"id": "zh", "text": "年假需要提前两周申请。"},
    )
    for query, expected in [("食堂", "ja"), ("年假申请", "zh"), ("假", "zh")]:
        _, found = await api.post("/v1/search", {"query": query, "mode": "lexical"})
        assert [result["document_id"] for result in found["results"]] == [expected]


async def test_a_deleted_collection_is_gone(api: Api) -> None:
    """Deleting a collection deletes its documents; the name can be used again at once."""
    await api.ingest({"id": "a", "text": "zebras"})
    assert (await api.delete("/v1/collections/default"))[0] == 200
    assert (await api.post("/v1/search", {"query": "zebras"}))[0] == 404
    await api.ingest({"id": "b", "text": "zebras again"})
    _, found = await api.post("/v1/search", {"query": "zebras"})
    assert [result["document_id"] for result in found["results"]] == ["b"]


async def test_another_embedder_is_refused(tmp_path: Path, dsn: str) -> None:
    """A collection remembers its model: with another one uploads and questions are refused."""
    async with serving(configured(), tmp_path, dsn, ingest=False) as api:
        await api.post("/v1/documents", {"id": "a", "text": "words"})
    async with serving(configured(embedding__provider="local"), tmp_path, dsn, ingest=False) as api:
        for path, body in [("/v1/documents", {"text": "x"}), ("/v1/query", {"query": "x"})]:
            status, answer = await api.post(path, body)
            assert status == 409
            assert "hashing-384" in answer["error"]["message"]
            assert "all-MiniLM-L6-v2-int8" in answer["error"]["message"]


async def test_health_names_every_dependency(api: Api) -> None:
    """Health measures each dependency and says what is not there."""
    status, health = await api.get("/health")
    assert (status, health["status"]) == (200, "ok")
    states = {name: found["status"] for name, found in health["dependencies"].items()}
    assert states == {
        "database": "ok",
        "ingest": "ok",
        "embedder": "ok",
        "llm": "absent",
        "redis": "absent",
        "reranker": "absent",
    }
    assert health["dependencies"]["database"]["latency_ms"] > 0
    (worker,) = health["workers"]
    assert (worker["worker"], worker["state"], worker["pid"]) == ("0", "ready", os.getpid())
    assert worker["version"] == health["version"]
    for uptime_s in (health["uptime_s"], worker["uptime_s"]):
        assert uptime_s == round(uptime_s, 1)


async def test_health_says_when_nobody_ingests(config: Config, tmp_path: Path, dsn: str) -> None:
    """Without an ingest process questions are answered, and health says what is missing."""
    async with serving(config, tmp_path, dsn, ingest=False) as api:
        status, health = await api.get("/health")
    assert (status, health["status"]) == (200, "degraded")
    assert health["dependencies"]["ingest"]["detail"].startswith("no ingest process")


async def test_ready_follows_the_workers_life(api: Api) -> None:
    """/ready is 503 unless new requests are welcome."""
    assert await api.get("/ready") == (200, {"status": "ready"})
    api.services.phase = "draining"
    assert await api.get("/ready") == (503, {"status": "draining"})


async def test_metrics_count_requests(api: Api) -> None:
    """/metrics is in Prometheus' format and counts by route, not by path."""
    await api.get("/v1/documents/none")
    await api.get("/no/such/path")
    async with api.client.get("/metrics") as response:
        text = await response.text()
    routes = {
        sample.labels["route"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ragserve_http_requests_total"
    }
    assert {"/v1/documents/{id}", "unknown"} <= routes
    assert "/no/such/path" not in routes


async def test_the_api_describes_itself(api: Api) -> None:
    """/openapi.json has every route, and every reference in it leads somewhere."""
    _, document = await api.get("/openapi.json")
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in api.client.app.router.routes()  # type: ignore[union-attr]
        if route.resource is not None and route.method != "HEAD"
    }
    described = {(m, path) for path, methods in document["paths"].items() for m in methods}
    assert served - described == {("get", "/openapi.json"), ("get", "/metrics")}
    names = set(document["components"]["schemas"])
    assert {"QueryRequest", "QueryResponse", "ErrorResponse"} <= names
    references = set(_references(document))
    assert references
    assert references <= {f"#/components/schemas/{name}" for name in names}


def _references(value: object) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [ref for item in value.values() for ref in _references(item)]
    if isinstance(value, list):
        return [ref for item in value for ref in _references(item)]
    return []


async def test_who_asks_for_health_may_leave(api: Api) -> None:
    """Cancelled before its probes have begun, it leaves nothing that should have run."""
    request = make_mocked_request("GET", "/health", app=api.client.app)  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for turns in range(4):
            asking = asyncio.create_task(health(request))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            (left,) = await asyncio.gather(asking, return_exceptions=True)
            assert isinstance(left, asyncio.CancelledError)
    assert [str(warning.message) for warning in caught] == []
