"""Questions and searches over HTTP."""

from __future__ import annotations

import pytest

from tests.conftest import Api

OFFICE = {
    "id": "office",
    "title": "Office guide",
    "url": "https://intra.example/office",
    "text": "Lunch is served at half past twelve. The bicycle cellar is open all night.",
    "metadata": {"year": 2024, "tags": ["house", "food"], "draft": False},
}
TRAVEL = {
    "id": "travel",
    "title": "Travel policy",
    "text": "Train tickets are booked in second class. Hotels may cost 140 euros a night.",
    "metadata": {"year": 2021, "tags": ["money"]},
}


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
async def test_search_finds_the_passage(api: Api, mode: str) -> None:
    """Every mode finds the passage and shows where it comes from."""
    await api.ingest(OFFICE, TRAVEL)
    status, answer = await api.post("/v1/search", {"query": "when is lunch served", "mode": mode})
    assert status == 200
    best = answer["results"][0]
    assert best.pop("score") > 0
    assert best.pop("chunk_id").isdigit()
    assert best == {
        "document_id": "office",
        "title": "Office guide",
        "url": "https://intra.example/office",
        "text": OFFICE["text"],
        "metadata": OFFICE["metadata"],
        "position": 0,
    }
    assert (answer["mode"], "degraded" in answer) == (mode, False)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"year": 2024}, {"office"}),
        ({"year": {"gte": 2021}}, {"office", "travel"}),
        ({"year": {"$lt": 2024}}, {"travel"}),
        ({"tags": ["money", "food"]}, {"office", "travel"}),
        ({"tags": "food", "draft": False}, {"office"}),
        ({"year": "2024"}, set()),
        ({"missing": 1}, set()),
    ],
)
async def test_filters_hold_in_every_mode(
    api: Api, mode: str, wanted: dict[str, object], expected: set[str]
) -> None:
    """A filter lets through exactly the documents whose metadata fits, whatever the mode."""
    await api.ingest(OFFICE, TRAVEL)
    body = {"query": "lunch hotels night open", "mode": mode, "filter": wanted}
    status, answer = await api.post("/v1/search", body)
    assert status == 200
    assert {result["document_id"] for result in answer["results"]} == expected


async def test_an_answer_cites_its_sentences(api: Api) -> None:
    """Without a language model the closest sentence answers, with the mark of its passage."""
    await api.ingest(OFFICE, TRAVEL)
    status, answer = await api.post("/v1/query", {"query": "When is lunch served?"})
    assert status == 200
    assert answer["answer"] == "Lunch is served at half past twelve. [1]"
    (citation,) = answer["citations"]
    assert (citation["index"], citation["document_id"]) == (1, "office")
    assert citation["url"] == "https://intra.example/office"
    assert (answer["model"], answer["cache"]) == ("extractive", "miss")
    assert answer["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


async def test_nothing_relevant_is_said_so(api: Api) -> None:
    """A question about something else gets no invented answer and no citations."""
    await api.ingest(OFFICE)
    status, answer = await api.post("/v1/query", {"query": "quantum chromodynamics lagrangian"})
    assert status == 200
    assert answer["citations"] == []
    assert answer["answer"].startswith("The documents do not contain anything relevant")


async def test_stages_are_timed(api: Api) -> None:
    """Server-Timing says how long each stage took."""
    await api.ingest(OFFICE)
    async with api.client.post("/v1/query", json={"query": "lunch"}) as response:
        stages = [part.partition(";")[0] for part in response.headers["Server-Timing"].split(", ")]
    assert stages == ["embed", "retrieve", "generate"]


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, None, "body: Object missing required field `query`"),
        ({"query": ""}, "query", "query is empty"),
        ({"query": "x" * 8001}, "query", "query has 8001 characters"),
        ({"query": "x", "top_k": 101}, "top_k", "top_k = 101 is over limits.top_k = 100"),
        ({"query": "x", "top_k": "5"}, "top_k", "top_k: Expected `int | null`, got `str`"),
        ({"query": "x", "mode": "fast"}, "mode", "mode: Invalid enum value 'fast'"),
        ({"query": "x", "topk": 5}, None, "body: Object contains unknown field `topk`"),
        ({"query": "x", "filter": {"a": {"near": 1}}}, "filter.a", "operator 'near'"),
        ({"query": "x", "collection": "none"}, "collection", "'none' does not exist"),
    ],
)
async def test_bad_requests_name_field_limit_and_value(
    api: Api, body: dict[str, object], param: str | None, message: str
) -> None:
    """An error names the field at fault, the limit and the value."""
    await api.ingest(OFFICE)
    status, answer = await api.post("/v1/search", body)
    error = answer["error"]
    assert status in (400, 404)
    assert error["param"] == param
    assert message in error["message"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}


async def test_without_the_database_words_still_find(api: Api) -> None:
    """When PostgreSQL is gone, a hybrid search answers from the index and says so."""
    await api.ingest(OFFICE, TRAVEL)
    await api.post("/v1/search", {"query": "dinner"})
    await api.services.database.close()
    status, answer = await api.post("/v1/search", {"query": "lunch"})
    assert (status, answer["degraded"]) == (200, ["database"])
    assert [result["document_id"] for result in answer["results"]] == ["office"]
    status, answer = await api.post("/v1/search", {"query": "lunch", "mode": "dense"})
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    status, health = await api.get("/health")
    assert (status, health["status"]) == (200, "degraded")
    assert health["dependencies"]["database"]["status"] == "failing"
