"""Kept answers over HTTP: given at once, never beyond a change, and what clients may ask for."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from ragserve.cache import Entry
from ragserve.errors import Unavailable
from ragserve.flow.context import Context
from ragserve.flow.flight import Flight
from ragserve.metrics import CACHE_REFRESHES
from ragserve.pipeline.making import Made
from ragserve.pipeline.question import Asked
from ragserve.schema import QueryResponse, Usage
from tests.conftest import Api, configured, serving
from tests.handlers.test_ask import OFFICE, TRAVEL
from tests.handlers.test_stream import counted, frames

LUNCH = {"query": "When is lunch served?"}
CHANGED = {**OFFICE, "text": "Lunch is served at one o'clock from now on."}


async def ask(
    api: Api, body: dict[str, Any], path: str = "/v1/query", **headers: str
) -> tuple[str, Any]:
    """Return Cache-Status and answer."""
    wishes = {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.client.post(path, json=body, headers=wishes) as response:
        answer = await response.json()
        assert response.status == 200, answer
        status = response.headers["Cache-Status"]
        assert ("Age" in response.headers) == status.startswith("ragserve; hit")
        return status, answer


@pytest.mark.parametrize("path", ["/v1/query", "/v1/search"])
async def test_the_second_time_it_is_kept(api: Api, path: str) -> None:
    """The same answer again, from memory, whatever the spelling of its question."""
    await api.ingest(OFFICE, TRAVEL)
    status, first = await ask(api, LUNCH, path)
    assert status == "ragserve; fwd=miss; stored"
    for body in (LUNCH, {"query": "  When is\tlunch served?", "filter": {}}):
        status, again = await ask(api, body, path)
        assert status == "ragserve; hit; detail=memory"
        assert again == {**first, **({"cache": "hit"} if path == "/v1/query" else {})}


@pytest.mark.parametrize(
    "other",
    [
        {"query": "when is lunch served?"},
        {**LUNCH, "top_k": 3},
        {**LUNCH, "mode": "lexical"},
        {**LUNCH, "filter": {"year": 2024}},
        {**LUNCH, "collection": "second"},
    ],
    ids=str,
)
async def test_another_question_is_computed(api: Api, other: dict[str, Any]) -> None:
    """Whatever may change the answer makes it another question."""
    await api.ingest(OFFICE)
    await api.ingest(OFFICE, collection="second")
    await ask(api, LUNCH)
    status, _ = await ask(api, other)
    assert status == "ragserve; fwd=miss; stored"


async def test_a_change_puts_answers_out_of_reach(api: Api) -> None:
    """Replacing, adding and deleting documents each ends every answer of the collection."""
    await api.ingest(OFFICE)
    await api.ingest(OFFICE, collection="second")
    await ask(api, {**LUNCH, "collection": "second"})
    _, before = await ask(api, LUNCH)
    await api.ingest(CHANGED)
    status, after = await ask(api, LUNCH)
    assert status.startswith("ragserve; fwd=miss")
    assert (before["answer"], after["answer"]) == (
        "Lunch is served at half past twelve. [1]",
        "Lunch is served at one o'clock from now on. [1]",
    )
    await api.delete("/v1/documents/office")
    status, gone = await ask(api, LUNCH)
    assert status.startswith("ragserve; fwd=miss")
    assert gone["citations"] == []
    status, _ = await ask(api, {**LUNCH, "collection": "second"})
    assert status == "ragserve; hit; detail=memory"


async def indexed(api: Api) -> None:
    """Wait until the index of the default collection has its newest version."""
    catalog, indexes = api.services.catalog, api.services.indexes
    async with asyncio.timeout(30):
        while True:
            collection = await catalog.get("default", "default")
            if indexes.version(collection, asyncio.get_running_loop().time()) == collection.version:
                return
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("query", ["?collection=default", ""])
async def test_kept_answers_can_be_deleted(api: Api, query: str) -> None:
    """Those of one collection, or all; then answers are kept again."""
    await api.ingest(OFFICE)
    await api.ingest(OFFICE, collection="second")
    second = {**LUNCH, "collection": "second"}
    for body in (LUNCH, second):
        await ask(api, body)
    status, answer = await api.delete(f"/v1/cache{query}")
    assert (status, answer) == (200, {"collections": ["default"] + ["second"] * (not query)})
    assert (await ask(api, LUNCH))[0].startswith("ragserve; fwd=miss")
    assert (await ask(api, second))[0].startswith("ragserve; hit" if query else "ragserve; fwd")
    await indexed(api)
    assert (await ask(api, {"query": "bicycle"}))[0] == "ragserve; fwd=miss; stored"


async def test_deleting_of_what_is_not_there_says_so(api: Api) -> None:
    """A misspelt collection is an error, not a success."""
    status, answer = await api.delete("/v1/cache?collection=none")
    assert (status, answer["error"]["param"]) == (404, "collection")
    assert await api.delete("/v1/cache") == (200, {"collections": []})


async def test_an_answer_from_an_index_that_is_behind_is_not_kept(api: Api) -> None:
    """While the index has not seen the newest version nothing is kept under that version."""
    await api.ingest(OFFICE)
    catalog = api.services.catalog
    collection = await catalog.get("default", "default")
    catalog.changed(f"{collection.id} {collection.version + 1}")
    for path in ("/v1/query", "/v1/search"):
        status, _ = await ask(api, LUNCH, path)
        assert status == "ragserve; fwd=miss"
    # Vectors come from the database, which is never behind.
    status, _ = await ask(api, {**LUNCH, "mode": "dense"}, "/v1/search")
    assert status == "ragserve; fwd=miss; stored"


async def test_a_degraded_answer_is_not_kept(api: Api) -> None:
    """What had to do without a dependency is given once and forgotten; kept answers stay."""
    await api.ingest(OFFICE)
    await ask(api, LUNCH, "/v1/search")
    await api.services.database.close()
    for _ in range(2):
        status, answer = await ask(api, {"query": "bicycle cellar"}, "/v1/search")
        assert (status, answer["degraded"]) == ("ragserve; fwd=miss", ["database"])
    status, _ = await ask(api, LUNCH, "/v1/search")
    assert status == "ragserve; hit; detail=memory"


async def test_clients_decide_about_keeping(api: Api) -> None:
    """no-cache computes anew, no-store leaves no trace, max-age bounds the age."""
    await api.ingest(OFFICE)
    assert (await ask(api, LUNCH, Cache_Control="no-store"))[0] == "ragserve; fwd=bypass"
    assert len(api.services.answers) == 0
    _, first = await ask(api, LUNCH, Cache_Control="no-cache")
    status, second = await ask(api, LUNCH, Cache_Control="no-cache")
    assert status == "ragserve; fwd=request; stored"
    assert first["id"] != second["id"]
    status, kept = await ask(api, LUNCH, Cache_Control="max-age=3600")
    assert (status, kept["id"]) == ("ragserve; hit; detail=memory", second["id"])
    assert (await ask(api, LUNCH, Pragma="no-cache"))[0] == "ragserve; fwd=request; stored"
    entry: Entry = api.services.answers._entries.items()[-1][1]
    entry.prepared.stored_at -= 10  # type: ignore[operator]
    assert (await ask(api, LUNCH, Cache_Control="max-age=10"))[0] == "ragserve; fwd=miss; stored"


async def test_only_if_cached_never_computes(api: Api) -> None:
    """A kept answer, or 504 at once."""
    await api.ingest(OFFICE)
    only = {"Cache-Control": "only-if-cached"}
    async with api.client.post("/v1/query", json=LUNCH, headers=only) as response:
        assert response.status == 504
        assert (await response.json())["error"]["code"] == "not_cached"
    await ask(api, LUNCH)
    assert (await ask(api, LUNCH, **only))[0] == "ragserve; hit; detail=memory"


async def test_a_kept_answer_streams(api: Api) -> None:
    """A streamed answer is kept, and a kept answer is streamed: sources, words, end."""
    await api.ingest(OFFICE)

    async def streamed() -> tuple[str, list[tuple[str, Any]]]:
        async with api.client.post("/v1/query", json={**LUNCH, "stream": True}) as response:
            assert response.status == 200
            return response.headers["Cache-Status"], [event async for event in frames(response)]

    status, first = await streamed()
    assert status == "ragserve; fwd=miss"
    assert first[-1][1]["cache"] == "miss"
    status, again = await streamed()
    assert status == "ragserve; hit; detail=memory"
    assert [name for name, _ in again] == ["sources", "delta", "end"]
    assert again[1] == first[1]
    assert again[2][1] == {**first[-1][1], "cache": "hit"}
    _, whole = await ask(api, LUNCH)
    assert (again[0][1]["citations"], whole["cache"]) == (whole["citations"], "hit")


async def test_the_express_lane_finds_what_was_asked_before(api: Api) -> None:
    """The bytes of a body that was answered lead to its answer until the collection changes."""
    await api.ingest(OFFICE)
    body = json.dumps(LUNCH).encode()
    lookup = ("default", b"/v1/query", body)
    answers, loop = api.services.answers, asyncio.get_running_loop()
    assert answers.try_prepared(*lookup, loop.time()) is None
    _, answer = await ask(api, LUNCH)
    found = answers.try_prepared(*lookup, loop.time())
    assert json.loads(found.body) == {**answer, "cache": "hit"}
    await api.ingest(CHANGED)
    assert answers.try_prepared(*lookup, loop.time()) is None


class Answering:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.outcomes: asyncio.Queue[Made[QueryResponse] | Exception] = asyncio.Queue()

    async def __call__(
        self, asked: Asked, context: Context, flight: Flight[Any, Any]
    ) -> Made[QueryResponse]:
        self.asked.set()
        outcome = await self.outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def made(text: str, *, whole: bool = True) -> Made[QueryResponse]:
    return Made(QueryResponse("ans", text, [], "m", Usage(), "miss"), whole, False, None)


@pytest.fixture
async def scripted(api: Api) -> Answering:
    """What the server's questions are now answered by."""
    await api.ingest(OFFICE)
    answering = Answering()
    api.services.pipeline._questions._making._compute = answering
    return answering


async def test_a_stale_answer_stands_until_there_is_a_new_one(
    api: Api, scripted: Answering
) -> None:
    """It is given at once, also when computing it anew fails, and replaced when that succeeds."""
    scripted.outcomes.put_nowait(made("old"))
    await ask(api, LUNCH)
    entry: Entry = api.services.answers._entries.items()[-1][1]
    caching = api.services.pipeline._questions
    for outcome, result in ((Unavailable("gone"), "failed"), (made("new"), "done")):
        entry.fresh_until = asyncio.get_running_loop().time() - 3.0
        entry.postpone(0.0)
        before = counted(CACHE_REFRESHES, result)
        scripted.asked.clear()
        for _ in range(3):
            status, answer = await ask(api, LUNCH)
            assert re.fullmatch(r"ragserve; hit; ttl=-\d+; detail=memory", status)
            assert answer["answer"] == "old"
        await asyncio.wait_for(scripted.asked.wait(), 30)
        scripted.outcomes.put_nowait(outcome)
        await asyncio.wait(caching._refreshing._under_way, timeout=30)
        assert counted(CACHE_REFRESHES, result) == before + 1
    status, answer = await ask(api, LUNCH)
    assert (status, answer["answer"]) == ("ragserve; hit; detail=memory", "new")


async def test_errors_and_cut_off_answers_are_not_kept(api: Api, scripted: Answering) -> None:
    """Whoever asks next gets another chance."""
    scripted.outcomes.put_nowait(Unavailable("gone"))
    status, _ = await api.post("/v1/query", LUNCH)
    assert status == 503
    scripted.outcomes.put_nowait(made("half", whole=False))
    assert (await ask(api, LUNCH))[0] == "ragserve; fwd=miss"
    scripted.outcomes.put_nowait(made("all"))
    assert (await ask(api, LUNCH))[1]["answer"] == "all"
    assert len(api.services.answers) == 1


async def test_who_asks_meanwhile_shares_the_answer(api: Api, scripted: Answering) -> None:
    """One computation; who joined is told so; who wants no trace computes alone."""
    asking = [asyncio.create_task(ask(api, LUNCH)) for _ in range(5)]
    asking.append(asyncio.create_task(ask(api, LUNCH, Cache_Control="no-store")))
    async with asyncio.timeout(30):
        while "6 aboard" not in repr(  # noqa: ASYNC110 - nobody tells
            api.services.pipeline._questions
        ):
            await asyncio.sleep(0)
    scripted.outcomes.put_nowait(made("one"))
    scripted.outcomes.put_nowait(made("one"))
    statuses = sorted([status for status, _ in await asyncio.gather(*asking)])
    assert statuses == [
        "ragserve; fwd=bypass",
        *["ragserve; fwd=miss; collapsed"] * 4,
        "ragserve; fwd=miss; stored",
    ]


async def test_without_memory_every_question_is_computed(tmp_path: Path, dsn: str) -> None:
    """cache.memory_bytes = 0: nothing is kept, and nothing claims to be."""
    async with serving(configured(cache__memory_bytes=0), tmp_path, dsn) as api:
        await api.ingest(OFFICE)
        for _ in range(2):
            assert (await ask(api, LUNCH))[0] == "ragserve; fwd=miss"


async def test_a_paraphrase_gets_the_answer_it_asks_for(tmp_path: Path, dsn: str) -> None:
    """With cache.similarity: told as such every time, within filter and version, never streamed
    as computed; a question that is no paraphrase is computed."""
    async with serving(configured(cache__similarity=0.7), tmp_path, dsn) as api:
        await api.ingest(OFFICE)
        _, first = await ask(api, LUNCH)
        again = {"query": "When exactly is lunch served?"}
        for _ in range(2):
            status, answer = await ask(api, again)
            assert status == "ragserve; hit; detail=semantic"
            assert answer == {**first, "cache": "hit"}
        for other in (
            {"query": "Where is the bicycle cellar?"},
            {"query": "When is lunch served in 2019?"},
            {**again, "filter": {"year": 2024}},
            {**again, "mode": "lexical"},
        ):
            assert (await ask(api, other))[0] == "ragserve; fwd=miss; stored"
        status, _ = await ask(api, again, Cache_Control="no-cache")
        assert status == "ragserve; fwd=request; stored"
        await api.ingest(CHANGED)
        assert (await ask(api, {"query": "When, then, is lunch served?"}))[0] == (
            "ragserve; fwd=miss; stored"
        )
