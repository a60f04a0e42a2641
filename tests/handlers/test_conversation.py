"""Follow-up questions: what is searched for, by the model's words or by a cheap rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Api, configured, serving
from tests.embed.scripted import HANG, Reply, ScriptedServer, Step, completion, scripted
from tests.handlers.test_ask import OFFICE, TRAVEL

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
ASKED: dict[str, Any] = {
    "model": "rag",
    "messages": [
        {"role": "user", "content": "When is lunch served?"},
        {"role": "assistant", "content": "At half past twelve."},
        {"role": "user", "content": "And hotels?"},
    ],
}


@asynccontextmanager
async def _served(
    tmp_path: Path, dsn: str, *script: Step, **settings: object
) -> AsyncIterator[tuple[Api, ScriptedServer]]:
    async with scripted(*script) as server:
        config = configured(
            llm__base_url=server.base_url,
            llm__attempts=1,
            answer__rewrite="model",
            answer__top_k=1,
            **settings,
        )
        async with asyncio.timeout(60), serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE, TRAVEL)
            yield api, server


async def _chat(api: Api) -> tuple[dict[str, Any], str]:
    async with api.client.post("/v1/chat/completions", json=ASKED) as response:
        assert response.status == 200
        return await response.json(), response.headers["Server-Timing"]


async def test_the_model_completes_the_question(tmp_path: Path, dsn: str) -> None:
    """Its words are searched for, of several lines the first; its cost is part of the cost."""
    rewritten = completion('"How much may a hotel cost a night?"\nI rewrote it.', usage=USAGE)
    async with _served(tmp_path, dsn, rewritten, completion("140 euros [1].", usage=USAGE)) as (
        api,
        server,
    ):
        answer, timing = await _chat(api)
    assert [one["document_id"] for one in answer["citations"]] == ["travel"]
    assert answer["usage"] == {name: 2 * count for name, count in USAGE.items()}
    assert "degraded" not in answer
    assert "rewrite;dur=" in timing
    assert "assistant: At half past twelve.\nuser: And hotels?" in json.dumps(
        server.asked[0]["messages"], ensure_ascii=False
    ).replace("\\n", "\n")
    assert "140 euros" in str(server.asked[1]["messages"])


FAILURES: dict[str, tuple[Step, dict[str, object]]] = {
    "broken": (Reply(b"oops", 500), {}),
    "garbage": (Reply(b"<html>"), {}),
    "empty": (completion(""), {}),
    "hangs": (HANG, {"answer__rewrite_timeout_s": 0.05}),
}


@pytest.mark.parametrize(("step", "settings"), FAILURES.values(), ids=FAILURES.keys())
async def test_without_the_models_words_the_rule_decides(
    tmp_path: Path, dsn: str, step: Step, settings: dict[str, object]
) -> None:
    """The question is searched for with the one before it; the answer says so and is not kept."""
    script = (step, completion("See [1].")) * 2
    async with _served(tmp_path, dsn, *script, **settings) as (api, server):
        for number in (1, 2):
            answer, timing = await _chat(api)
            assert answer["degraded"] == ["rewrite"]
            assert 'rewrite;desc="failed";dur=' in timing
            assert len(server.asked) == 2 * number


async def test_a_first_question_is_not_rewritten(tmp_path: Path, dsn: str) -> None:
    """Without a history there is nothing to complete it by."""
    async with _served(tmp_path, dsn, completion("At noon [1].")) as (api, server):
        body = {**ASKED, "messages": ASKED["messages"][:1]}
        status, _ = await api.post("/v1/chat/completions", body)
        assert (status, len(server.asked)) == (200, 1)
