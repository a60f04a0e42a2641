"""A reranker elsewhere, in both shapes: the order it gives, and every way to give none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ragserve.errors import UpstreamFailed
from ragserve.retrieve import Reranker
from ragserve.upstream import upstream
from tests.conftest import configured
from tests.embed.scripted import HANG, Reply, ScriptedServer, Step, scripted
from tests.generate.samples import passages

KEY = "rr-very-secret"
FOUND = passages("Fish on Friday.", "Lunch is at noon.", "The ferry leaves at one.")
SCORES = [0.1, 0.9, 0.5]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause."""
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)


def cohere(scores: list[float]) -> Reply:
    """Return the reply of Cohere, Jina and vLLM, best first."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return Reply(
        {"id": "1", "results": [{"index": i, "relevance_score": scores[i]} for i in order]}
    )


def tei(scores: list[float]) -> Reply:
    """Return the reply of text-embeddings-inference."""
    return Reply([{"index": i, "score": score} for i, score in enumerate(scores)])


@asynccontextmanager
async def _reranker(
    *script: Step, **settings: object
) -> AsyncIterator[tuple[Reranker, ScriptedServer]]:
    async with scripted(*script) as server:
        chosen = {"base_url": server.base_url, "api_key": KEY, "model": "m", **settings}
        reranker = Reranker(
            configured(**{f"rerank__{name}": value for name, value in chosen.items()}).rerank
        )
        try:
            yield reranker, server
        finally:
            await reranker.close()


async def _best(reranker: Reranker, limit: int = 2) -> list[tuple[str, float]]:
    best = await reranker.best("When is lunch?", FOUND, limit, 30.0)
    return [(passage.text, passage.score) for passage in best]


@pytest.mark.parametrize(("api", "reply"), [("cohere", cohere(SCORES)), ("tei", tei(SCORES))])
async def test_the_best_come_first(api: str, reply: Reply) -> None:
    """In either shape the passages come back in its order, with its scores."""
    async with _reranker(reply, api=api) as (reranker, _):
        assert await _best(reranker) == [
            ("Lunch is at noon.", 0.9),
            ("The ferry leaves at one.", 0.5),
        ]


async def test_cohere_is_asked_in_its_shape() -> None:
    """Model, question, passages below their titles, and how many are wanted."""
    async with _reranker(cohere(SCORES)) as (reranker, server):
        await _best(reranker)
    assert server.paths == ["/v1/rerank"]
    assert server.keys == [f"Bearer {KEY}"]
    assert server.asked == [
        {
            "model": "m",
            "query": "When is lunch?",
            "documents": [f"Title\n{passage.text}" for passage in FOUND],
            "top_n": 2,
        }
    ]


async def test_tei_is_asked_in_its_shape() -> None:
    """Question and texts, long ones cut."""
    async with _reranker(tei(SCORES), api="tei") as (reranker, server):
        await _best(reranker)
    (asked,) = server.asked
    assert sorted(asked) == ["query", "texts", "truncate"]
    assert len(asked["texts"]) == 3


FAILURES: dict[str, tuple[list[Step], str]] = {
    "broken": ([Reply(b"oops", 500)], "status 500: oops"),
    "refuses": ([Reply(f"key {KEY}?".encode(), 401)], r"status 401: key \*\*\*\?"),
    "throttled": ([Reply(b"later", 429)], "status 429"),
    "no json": ([Reply(b"<html>")], "unusable answer"),
    "no utf-8": ([Reply(b'{"results": [{"index": 0, "x": "\xff"}]}')], "unusable answer"),
    "another shape": ([Reply({"data": []})], "unusable answer"),
    "an index too high": ([cohere([*SCORES, 1.0])], "index 3 of 3"),
    "too few": ([cohere([0.5])], "1 of 2 passages"),
    "one of them twice": (
        [Reply({"results": [{"index": 1, "relevance_score": 0.5}] * 3})],
        "1 of 2 passages",
    ),
    "no score": ([Reply({"results": [{"index": 0}]})], "score None"),
    "hangs": ([HANG], "no order within 0.1 s"),
}


@pytest.mark.parametrize(("script", "text"), FAILURES.values(), ids=FAILURES.keys())
async def test_failures_have_a_name(script: list[Step], text: str) -> None:
    """Whatever it does wrong is an upstream failure that says so, without its key."""
    async with _reranker(*script, timeout_s=0.1 if script == [HANG] else 30.0) as (reranker, _):
        with pytest.raises(UpstreamFailed, match=text) as failed:
            await _best(reranker)
        assert KEY not in failed.value.message
        assert "0 busy" in repr(reranker)


async def test_it_is_tried_twice_and_then_left_alone() -> None:
    """A passing failure is tried again; after three in a row nobody waits for it."""
    async with _reranker(Reply(b"busy", 503), cohere(SCORES)) as (reranker, server):
        assert len(await _best(reranker)) == 2
        assert len(server.asked) == 2
        reranker.check_breaker()
    async with _reranker(Reply(b"oops", 500)) as (reranker, server):
        for _ in range(2):
            with pytest.raises(UpstreamFailed):
                await _best(reranker)
        asked = len(server.asked)
        assert asked == 3
        with pytest.raises(UpstreamFailed, match="left alone"):
            reranker.check_breaker()


async def test_a_check_asks_for_an_order() -> None:
    """It passes if two passages are told apart."""
    for reply in (cohere([0.9, 0.1]), Reply({"results": []})):
        async with _reranker(reply) as (reranker, _):
            if reply == cohere([0.9, 0.1]):
                await reranker.check()
            else:
                with pytest.raises(UpstreamFailed):
                    await reranker.check()


async def test_what_it_usually_takes_is_known_after_a_while() -> None:
    """Before that it counts as nothing: a first call is always made."""
    async with _reranker(cohere(SCORES)) as (reranker, _):
        assert reranker.typical_s == 0.0
        for _ in range(20):
            await _best(reranker)
        assert 0.0 < reranker.typical_s < 10.0


def relevance(asked: Any) -> Reply:
    """Return scores by shared words, as a crude reranker gives them."""
    words = set(asked["query"].lower().strip("?").split())
    return cohere(
        [
            len(words & set(text.lower().replace(".", "").split()))
            for text in asked.get("documents", asked.get("texts"))
        ]
    )
