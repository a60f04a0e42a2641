"""A reranker between search and answer: it orders, and its absence shows and costs nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Api, configured, serving
from tests.embed.scripted import HANG, Reply, ScriptedServer, Step, completion, scripted
from tests.retrieve.test_rerank import relevance

# The last one says the question's words; the search, by counts of hashed words, prefers the others.
DISHES = [
    {"id": f"menu-{number}", "title": "Menu", "text": f"Menu fish menu fish served {number}."}
    for number in range(4)
]
HOURS = {"id": "hours", "title": "Hours", "text": "The menu with fish is served at noon daily."}
QUESTION = {"query": "Is fish menu served at noon daily?", "top_k": 2}


@asynccontextmanager
async def _served(
    tmp_path: Path, dsn: str, *script: Step, **settings: object
) -> AsyncIterator[tuple[Api, ScriptedServer]]:
    async with scripted(*script) as server:
        config = configured(
            rerank__base_url=server.base_url, rerank__model="r", answer__sentences=1, **settings
        )
        async with serving(config, tmp_path, dsn) as api:
            await api.ingest(*DISHES, HOURS)
            yield api, server


async def _post(api: Api, path: str, **headers: str) -> tuple[dict[str, Any], str, str]:
    """Return the answer, ``Server-Timing`` and ``Cache-Status``."""
    async with api.client.post(path, json=QUESTION, headers=headers) as response:
        assert response.status == 200
        timing, cache = response.headers["Server-Timing"], response.headers["Cache-Status"]
        return await response.json(), timing, cache


async def test_a_search_is_in_its_order(tmp_path: Path, dsn: str) -> None:
    """It is shown more passages than are wanted, and its best come first with its scores."""
    async with _served(tmp_path, dsn, relevance, rerank__candidates=5) as (api, server):
        found, timing, cache = await _post(api, "/v1/search")
        assert [len(asked["documents"]) for asked in server.asked] == [5]
        assert found["results"][0]["document_id"] == "hours"
        assert len(found["results"]) == 2
        assert found["results"][0]["score"] > found["results"][1]["score"] >= 1
        assert "degraded" not in found
        assert re.search(r"rerank;dur=[0-9.]+", timing)
        assert cache.endswith("stored")
        assert (await api.get("/health"))[1]["dependencies"]["reranker"]["status"] == "ok"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_is_made_of_its_best(tmp_path: Path, dsn: str, streamed: bool) -> None:
    """The first citation is what it found most relevant; a stream's head says its time, too."""
    async with _served(tmp_path, dsn, relevance) as (api, _):
        body = {**QUESTION, "stream": streamed}
        async with api.client.post("/v1/query", json=body) as response:
            text = await response.text()
            assert "rerank;dur=" in response.headers["Server-Timing"]
    first = re.search(r'"index":1,"document_id":"([a-z0-9-]+)"', text)
    assert first is not None
    assert first[1] == "hours"


async def test_the_language_model_is_given_its_best(tmp_path: Path, dsn: str) -> None:
    """Source 1 of the prompt is the most relevant passage."""
    async with (
        scripted(completion("At noon [1].")) as llm,
        _served(tmp_path, dsn, relevance, llm__base_url=llm.base_url) as (api, _),
    ):
        answer, _, _ = await _post(api, "/v1/query")
    assert answer["citations"][0]["document_id"] == "hours"
    assert "[1] Hours\nThe menu with fish" in llm.asked[0]["messages"][1]["content"]


FAILURES: dict[str, tuple[Step, dict[str, object], str]] = {
    "broken": (Reply(b"oops", 500), {}, r'rerank;desc="failed";dur='),
    "garbage": (Reply(b"<html>"), {}, r'rerank;desc="failed";dur='),
    "hangs": (HANG, {"rerank__timeout_s": 0.05}, r'rerank;desc="failed";dur='),
}


@pytest.mark.parametrize(("step", "settings", "said"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("path", ["/v1/search", "/v1/query"])
async def test_without_it_the_search_decides(
    tmp_path: Path, dsn: str, path: str, step: Step, settings: dict[str, object], said: str
) -> None:
    """The answer is there, says that it is degraded, and is not kept for the next one."""
    async with _served(tmp_path, dsn, step, **settings) as (api, server):
        for number in (1, 2):
            answer, timing, cache = await _post(api, path)
            assert answer["degraded"] == ["reranker"]
            assert re.search(said, timing)
            assert cache == "ragserve; fwd=miss"
            assert len(server.asked) >= number


async def test_broken_it_is_left_alone(tmp_path: Path, dsn: str) -> None:
    """After failures nobody waits for it, and /health says so."""
    async with _served(tmp_path, dsn, Reply(b"oops", 500)) as (api, server):
        for _ in range(3):
            await _post(api, "/v1/search")
        asked = len(server.asked)
        assert asked == 3
        _, health = await api.get("/health")
        assert health["dependencies"]["reranker"]["status"] == "failing"
        assert health["status"] == "degraded"


async def test_near_the_deadline_it_is_skipped(tmp_path: Path, dsn: str) -> None:
    """What would take longer than is left is not begun: the answer comes in time."""
    async with _served(tmp_path, dsn, relevance) as (api, server):
        api.services.reranker._seconds._values.extend([20.0] * 20)
        answer, timing, cache = await _post(api, "/v1/search", **{"X-Request-Timeout": "10"})
        assert answer["degraded"] == ["reranker"]
        assert 'rerank;desc="skipped"' in timing
        assert cache == "ragserve; fwd=miss"
        assert server.asked == []
        answer, timing, _ = await _post(api, "/v1/search")
        assert "degraded" not in answer, "who has the time gets the better order"
        assert len(server.asked) == 1


async def test_one_passage_needs_no_order(tmp_path: Path, dsn: str) -> None:
    """What is alone is not sent anywhere."""
    async with _served(tmp_path, dsn, relevance) as (api, server):
        body = {**QUESTION, "filter": {"no": "such"}}
        status, found = await api.post("/v1/search", body)
        assert (status, found["results"], server.asked) == (200, [], [])
