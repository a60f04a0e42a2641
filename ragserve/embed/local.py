"""A model on this machine, off the event loop, fed in batches that form by themselves.

The model runs in one thread. While it computes, requests gather; when it is done, what has
gathered becomes the next batch. An idle model waits ``window_ms`` for company first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ragserve.config import EmbeddingConfig
from ragserve.errors import Overloaded

POLITE_NICE = 10
"""A tenth of a contended core: with more, the kernel stops a busy event loop every few milliseconds
and lets the model compute until its next tick."""
Vectors = npt.NDArray[np.float32]


class Model(Protocol):
    """A synchronous model; ``encode`` blocks and releases the GIL while it computes."""

    name: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (texts, dimensions) with unit rows."""


class _Waiting(NamedTuple):
    texts: Sequence[str]
    done: asyncio.Future[Vectors]


class LocalEmbedder:
    """An ``Embedder`` over a synchronous model."""

    def __init__(
        self, model: Model, config: EmbeddingConfig, thread: ThreadPoolExecutor | None = None
    ) -> None:
        self.name = model.name
        self.dimensions = model.dimensions
        self._model = model
        self._batch_size = config.batch_size
        self._window_s = config.window_ms / 1000
        self._limit = config.queue
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._thread = thread or _polite_thread()
        self._work: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, config: EmbeddingConfig) -> LocalEmbedder:
        """Load the model in a thread and embed once, so that the first question is not slow."""
        thread = _polite_thread()
        # Loaded there, so that the threads that a runtime starts are polite, too.
        model = await asyncio.get_running_loop().run_in_executor(thread, _load, config)
        embedder = cls(model, config, thread)
        await embedder.embed(["warm"])
        return embedder

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Return an array of shape (texts, dimensions) with unit rows."""
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        # One caller's own batch is never refused: the bound is on what gathers from many.
        if self._queue and self._queued + len(texts) > self._limit:
            raise Overloaded(
                f"embedding: {self._queued} texts wait already, embedding.queue = {self._limit}",
                retry_after_s=1.0,
            )
        waiting = _Waiting(texts, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._queued += len(texts)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._drain())
        return await waiting.done

    async def close(self) -> None:
        """End the thread; what still waits is cancelled."""
        if self._work is not None:
            self._work.cancel()
        for waiting in self._queue:
            waiting.done.cancel()
        self._queue.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _drain(self) -> None:
        if self._window_s:
            await asyncio.sleep(self._window_s)
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            texts = [text for waiting in batch for text in waiting.texts]
            try:
                vectors = await loop.run_in_executor(self._thread, self._model.encode, texts)
            except asyncio.CancelledError:  # closed: nobody will finish these
                for waiting in batch:
                    waiting.done.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - handed to those who asked
                for waiting in batch:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)
                continue
            start = 0
            for waiting in batch:
                end = start + len(waiting.texts)
                if not waiting.done.done():
                    waiting.done.set_result(vectors[start:end])
                start = end

    def _next_batch(self) -> list[_Waiting]:
        """Take whole requests, oldest first, up to the batch size; skip those given up."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].texts) <= self._batch_size):
            waiting = self._queue.popleft()
            self._queued -= len(waiting.texts)
            if not waiting.done.done():
                batch.append(waiting)
                size += len(waiting.texts)
        return batch

    def __repr__(self) -> str:
        return f"<LocalEmbedder {self.name}, {self._queued} texts waiting>"


def _polite_thread() -> ThreadPoolExecutor:
    """Return a thread that steps back behind the event loop where both want the same core."""
    return ThreadPoolExecutor(1, thread_name_prefix="embed", initializer=_step_back)


def _step_back() -> None:
    # A sandbox may forbid either; then both are equal.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLITE_NICE)
    with contextlib.suppress(PermissionError):
        # Woken by the loop it must not take the core from it: that would be for a whole tick.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _load(config: EmbeddingConfig) -> Model:
    if config.provider == "hashing":
        from ragserve.embed.hashing import HashingModel

        return HashingModel()
    from ragserve.embed.minilm import MiniLM

    return MiniLM(threads=config.threads)
