"""What the metrics say of a language model's answers, by value."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from ragserve.generate import reply
from ragserve.handlers import sse
from ragserve.metrics import NOTED, Observations
from tests.conftest import Api, configured, serving
from tests.generate.test_dictation import STOP, USAGE, piece
from tests.handlers.test_ask import OFFICE
from tests.handlers.test_stream import frames
from tests.upstream.wire import END, HEAD, Client, Script, hang, said, wire

QUESTION = {"query": "when is lunch served", "stream": True}


class Clock:
    """Stands for the module ``time`` in those who measure."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return what the test says."""
        return self.now


class Counted:
    """How much metrics have risen since this was made."""

    def __init__(self) -> None:
        self._before = self._all()

    def __call__(self, name: str, **labels: str) -> float:
        """Return by how much one has."""
        key = name, tuple(sorted(labels.items()))
        return self._all().get(key, 0.0) - self._before.get(key, 0.0)

    @staticmethod
    def _all() -> dict[Any, float]:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for metric in REGISTRY.collect()
            for sample in metric.samples
        }


async def asked(script: Script, tmp_path: Path, dsn: str, ask: Any, **settings: object) -> None:
    """Have ``ask`` ask a server whose language model follows the script."""
    async with asyncio.timeout(30), wire(script) as state:
        url = f"http://127.0.0.1:{state.port}/v1"
        config = configured(llm__base_url=url, llm__model="m", **settings)
        async with serving(config, tmp_path, dsn) as api:
            await api.ingest(OFFICE)
            await ask(api)


async def test_an_answer_word_by_word(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time to the first words, between words, tokens, the call: each once and as long as it was."""
    clock = Clock()
    monkeypatch.setattr(sse, "time", clock)
    monkeypatch.setattr(reply, "monotonic", clock.monotonic)
    heard = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        clock.now += 2.0
        await client.send(HEAD + said(piece("At noon")))
        for _ in range(2):
            await heard.wait()
            heard.clear()
            clock.now += 0.5
            await client.send(said(piece(" [1]. ")))
        await client.send(STOP + END)
        await client.gone()

    async def ask(api: Api) -> None:
        async with api.client.post("/v1/query", json=QUESTION) as response:
            async for name, _ in frames(response):
                if name == "delta":
                    heard.set()
        async with api.client.post("/v1/query", json=QUESTION) as response:
            await response.read()  # kept: nobody waits for words, no model is asked

    counted = Counted()
    await asked(script, tmp_path, dsn, ask)
    assert counted("ragserve_first_text_seconds_count") == 2
    assert counted("ragserve_first_text_seconds_sum") == pytest.approx(2.0)
    assert counted("ragserve_text_gap_seconds_count") == 2
    assert counted("ragserve_text_gap_seconds_sum") == pytest.approx(1.0)
    assert counted("ragserve_llm_tokens_total", kind="prompt") == USAGE["prompt_tokens"]
    assert counted("ragserve_llm_tokens_total", kind="completion") == USAGE["completion_tokens"]
    assert counted("ragserve_upstream_seconds_count", upstream="language model") == 1
    assert counted("ragserve_streams_total", result="finished") == 2
    assert counted("ragserve_answers_total", kind="generated") == 1


async def test_one_answer_for_two_readers_who_leave(tmp_path: Path, dsn: str) -> None:
    """A flight that was started and joined; two streams left and one call of a model cancelled."""

    async def read(api: Api) -> None:
        async with api.client.post("/v1/query", json=QUESTION) as response:
            await response.read()

    reached = asyncio.Event()

    async def script(client: Client) -> None:
        reached.set()
        await hang(client)

    async def ask(api: Api) -> None:
        readers = [asyncio.create_task(read(api))]
        await reached.wait()
        readers.append(asyncio.create_task(read(api)))
        while api.services.in_flight.count < 2:  # noqa: ASYNC110 - the server's own count
            await asyncio.sleep(0)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        while api.services.in_flight.count:  # noqa: ASYNC110 - the server's own count
            await asyncio.sleep(0)

    counted = Counted()
    await asked(script, tmp_path, dsn, ask)
    assert counted("ragserve_flights_total", result="started") == 1
    assert counted("ragserve_flights_total", result="joined") == 1
    assert counted("ragserve_streams_total", result="left") == 2
    labels = {"upstream": "language model"}
    assert counted("ragserve_upstream_errors_total", kind="cancelled", **labels) == 1


async def test_failures_are_counted_by_their_kind(tmp_path: Path, dsn: str) -> None:
    """After three in a row the server is left alone, which shows, too."""
    oops = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"

    async def script(client: Client) -> None:
        while await client.request():
            await client.send(oops)

    async def ask(api: Api) -> None:
        for number in range(3):
            status, answer = await api.post("/v1/query", {"query": f"lunch {number}"})
            assert (status, answer["degraded"]) == (200, ["llm"])
        labels = {
            "upstream": "language model",
            "server": api.services.config.llm.base_url,
            "model": "m",
        }
        assert REGISTRY.get_sample_value("ragserve_upstream_open", labels) == 1

    counted = Counted()
    await asked(script, tmp_path, dsn, ask, llm__attempts=1)
    labels = {"upstream": "language model"}
    assert counted("ragserve_upstream_errors_total", kind="server", **labels) == 3
    assert counted("ragserve_upstream_seconds_count", **labels) == 3
    assert counted("ragserve_degraded_total", dependency="llm") == 3


async def test_what_is_passed_through_whole_counts_its_tokens(tmp_path: Path, dsn: str) -> None:
    """A client's own completion, not asked of the documents, is paid for like any other."""
    body = json.dumps({"choices": [{"message": {"content": "Hi"}}], "usage": USAGE}).encode()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await client.gone()

    async def ask(api: Api) -> None:
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        assert (await api.post("/v1/chat/completions", chat))[0] == 200

    counted = Counted()
    await asked(script, tmp_path, dsn, ask)
    assert counted("ragserve_llm_tokens_total", kind="completion") == USAGE["completion_tokens"]


async def test_the_first_text_of_what_is_passed_through(
    tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader waits for it as others do; how it goes on is the model's own business."""
    clock = Clock()
    monkeypatch.setattr(sse, "time", clock)

    async def script(client: Client) -> None:
        await client.request()
        clock.now += 3.0
        await client.send(HEAD + said(piece("Hi")))
        await client.send(said(piece(" you")) + STOP + END)
        await client.gone()

    async def ask(api: Api) -> None:
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        async with api.client.post("/v1/chat/completions", json=chat) as response:
            await response.read()

    counted = Counted()
    await asked(script, tmp_path, dsn, ask)
    assert counted("ragserve_first_text_seconds_count") == 1
    assert counted("ragserve_first_text_seconds_sum") == pytest.approx(3.0)
    assert counted("ragserve_text_gap_seconds_count") == 0


def test_observations_are_counted_where_they_belong() -> None:
    """As the histogram itself would count them, before and behind any number of foldings."""
    registry = CollectorRegistry()
    kept, direct = (
        Histogram(name, "A time.", buckets=(0.1, 0.5, 1.0), registry=registry)
        for name in ("kept_seconds", "direct_seconds")
    )
    observations = Observations(kept)
    for number in range(3 * NOTED):
        amount = (number * 7919 % 1300) / 1000
        observations.observe(amount)
        direct.observe(amount)
    for amount in (0.1, 0.5, 1.0):
        observations.observe(amount)
        direct.observe(amount)
    observations.fold()
    told = {sample.name + str(sample.labels): sample.value for sample in _samples(registry)}
    for name, value in told.items():
        assert told[name.replace("kept", "direct")] == pytest.approx(value), name


def _samples(registry: CollectorRegistry) -> Iterator[Any]:
    for metric in registry.collect():
        yield from metric.samples
