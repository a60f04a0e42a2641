"""A model in one thread: requests gather into batches and never disturb each other."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from ragserve.embed.local import LocalEmbedder
from ragserve.errors import Overloaded
from tests.conftest import configured

PATIENCE_S = 30.0
Vectors = npt.NDArray[np.float32]


class _BlockingModel:
    """Computes only while its gate is open; fails on the text ``bad``."""

    name = "blocking"
    dimensions = 2

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.calls: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        if "bad" in texts:
            raise ValueError("bad text")
        return np.array([[len(text), 0] for text in texts], np.float32)


@pytest.fixture
def model() -> _BlockingModel:
    """A model whose gate is closed."""
    return _BlockingModel()


@pytest.fixture
async def embedder(model: _BlockingModel) -> AsyncIterator[LocalEmbedder]:
    """Batches of 4 texts, a queue of 6, no window."""
    config = configured(embedding__batch_size=4, embedding__queue=6).embedding
    opened = LocalEmbedder(model, config)
    yield opened
    model.gate.set()
    await opened.close()


async def _begin(embedder: LocalEmbedder, *texts: str) -> asyncio.Task[Vectors]:
    """Start a request and let it run until it waits."""
    task = asyncio.create_task(embedder.embed(texts))
    await asyncio.sleep(0)
    return task


async def _compute_together(
    embedder: LocalEmbedder, model: _BlockingModel, *texts: str
) -> list[asyncio.Task[Vectors]]:
    """Start a request for each text at once and return when the model works on them."""
    tasks = [asyncio.create_task(embedder.embed([text])) for text in texts]
    assert await asyncio.to_thread(model.entered.wait, PATIENCE_S)
    assert model.calls == [list(texts)]
    return tasks


async def _begin_computing(embedder: LocalEmbedder, model: _BlockingModel) -> asyncio.Task[Vectors]:
    """Start a request that the model works on until its gate opens."""
    (task,) = await _compute_together(embedder, model, "x")
    return task


async def test_requests_gather_while_the_model_computes(
    embedder: LocalEmbedder, model: _BlockingModel
) -> None:
    """What arrived during a batch is the next batch, and everybody gets their own rows."""
    first = await _begin_computing(embedder, model)
    second = await _begin(embedder, "aa")
    third = await _begin(embedder, "bbb", "bbbb")
    assert repr(embedder) == "<LocalEmbedder blocking, 3 texts waiting>"
    model.gate.set()
    assert (await first).tolist() == [[1, 0]]
    assert (await second).tolist() == [[2, 0]]
    assert (await third).tolist() == [[3, 0], [4, 0]]
    assert model.calls == [["x"], ["aa", "bbb", "bbbb"]]


async def test_a_batch_holds_whole_requests_up_to_its_size(
    embedder: LocalEmbedder, model: _BlockingModel
) -> None:
    """Requests are not torn apart and keep their order; a large one is a batch of its own."""
    tasks = [await _begin_computing(embedder, model)]
    for texts in (["a", "b", "c"], ["d", "e"], ["f"]):
        tasks.append(await _begin(embedder, *texts))  # noqa: PERF401 - one after the other
    model.gate.set()
    await asyncio.gather(*tasks)
    assert model.calls == [["x"], ["a", "b", "c"], ["d", "e", "f"]]
    await embedder.embed(["1", "2", "3", "4", "5"])
    assert model.calls[-1] == ["1", "2", "3", "4", "5"]


async def test_questions_within_the_window_travel_together(model: _BlockingModel) -> None:
    """An idle model waits a moment for company."""
    model.gate.set()
    embedder = LocalEmbedder(model, configured(embedding__window_ms=1.0).embedding)
    await asyncio.gather(*(embedder.embed([text]) for text in ("a", "bb", "ccc")))
    assert model.calls == [["a", "bb", "ccc"]]
    await embedder.close()


async def test_a_full_queue_refuses(embedder: LocalEmbedder, model: _BlockingModel) -> None:
    """More texts than the queue holds are refused by name; what waits already is served."""
    tasks = [await _begin_computing(embedder, model), await _begin(embedder, *"abcd")]
    tasks.append(await _begin(embedder, *"ef"))
    with pytest.raises(Overloaded) as refused:
        await embedder.embed(["g"])
    assert refused.value.message == "embedding: 6 texts wait already, embedding.queue = 6"
    assert refused.value.retry_after_s == 1.0
    model.gate.set()
    assert [len(rows) for rows in await asyncio.gather(*tasks)] == [1, 4, 2]


async def test_one_large_request_is_not_refused(
    embedder: LocalEmbedder, model: _BlockingModel
) -> None:
    """A request larger than the queue is served if nobody waits before it."""
    first = await _begin_computing(embedder, model)
    large = await _begin(embedder, *"abcdefghij")
    model.gate.set()
    await first
    assert (await large).shape == (10, 2)


async def test_a_request_given_up_while_waiting_is_not_computed(
    embedder: LocalEmbedder, model: _BlockingModel
) -> None:
    """A cancelled request costs the model nothing and the others nothing either."""
    first = await _begin_computing(embedder, model)
    given_up, other = await _begin(embedder, "aa"), await _begin(embedder, "bbb")
    given_up.cancel()
    model.gate.set()
    assert (await other).tolist() == [[3, 0]]
    await first
    assert model.calls == [["x"], ["bbb"]]


async def test_a_request_given_up_while_computed_leaves_the_others_their_rows(
    embedder: LocalEmbedder, model: _BlockingModel
) -> None:
    """Cancelling one request of a batch under way does not shift or end the others."""
    given_up, other = await _compute_together(embedder, model, "aa", "bbb")
    given_up.cancel()
    model.gate.set()
    assert (await other).tolist() == [[3, 0]]
    assert given_up.cancelled()


async def test_a_failing_batch_fails_only_its_own(
    embedder: LocalEmbedder, model: _BlockingModel
) -> None:
    """An error of the model reaches those of its batch; the next batch is computed."""
    bad, fellow = await _compute_together(embedder, model, "bad", "good")
    later = await _begin(embedder, "later")
    model.gate.set()
    results = await asyncio.gather(bad, fellow, later, return_exceptions=True)
    assert [str(result) for result in results[:2]] == ["bad text", "bad text"]
    assert (await later).tolist() == [[5, 0]]
    assert model.calls == [["bad", "good"], ["later"]]


async def test_the_model_steps_back_behind_whoever_wants_its_core() -> None:
    """Its thread is nicer than the loop's, and when it is woken it takes the core from nobody."""

    class Look(_BlockingModel):
        def encode(self, texts: Sequence[str]) -> Vectors:
            self.niceness = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            self.policy = os.sched_getscheduler(0)
            return np.zeros((len(texts), 2), np.float32)

    look = Look()
    embedder = LocalEmbedder(look, configured(embedding__window_ms=0).embedding)
    await embedder.embed(["a"])
    await embedder.close()
    assert look.niceness > os.getpriority(os.PRIO_PROCESS, 0)
    assert (look.policy, os.sched_getscheduler(0)) == (os.SCHED_BATCH, os.SCHED_OTHER)


async def test_no_texts_cost_nothing(embedder: LocalEmbedder, model: _BlockingModel) -> None:
    """Without texts the answer has no rows and the model is not asked."""
    assert (await embedder.embed([])).shape == (0, 2)
    assert model.calls == []


async def test_closing_ends_every_wait(embedder: LocalEmbedder, model: _BlockingModel) -> None:
    """Nobody waits forever for an embedder that was closed, neither queued nor computed."""
    computed, queued = await _begin_computing(embedder, model), await _begin(embedder, "aa")
    await embedder.close()
    _, waiting = await asyncio.wait([computed, queued], timeout=1.0)
    for task in waiting:
        task.cancel()
    assert not waiting


async def test_the_configured_model_opens_warm() -> None:
    """The hashing model is opened by name and knows its dimension."""
    embedder = await LocalEmbedder.open(configured().embedding)
    assert (embedder.name, embedder.dimensions) == ("hashing-384", 384)
    assert (await embedder.embed(["a", "b"])).shape == (2, 384)
    await embedder.close()
