"""The reading processes: a document that hangs or crashes a parser costs one process, not ours.

Each slot is an executor of one process, so that killing it on a deadline ends exactly the work
that exceeded it. Small documents travel in batches; when a batch is lost, each of its documents
is tried alone, so that only the guilty one is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import structlog

from ragserve.config import ChunkingConfig, IngestConfig
from ragserve.ingest.prepare import Prepared, Refused, Source, prepare, process_id, start_process

log = structlog.get_logger(__name__)


class Readers:
    """A bounded set of reading processes, started when first needed."""

    def __init__(self, config: IngestConfig, chunking: ChunkingConfig) -> None:
        self._config = config
        self._chunking = chunking
        self._idle: asyncio.LifoQueue[_Slot] = asyncio.LifoQueue()
        self._slots = [_Slot(config, chunking) for _ in range(config.readers)]
        for slot in self._slots:
            self._idle.put_nowait(slot)

    async def warm(self) -> None:
        """Start the processes, so that the first document does not wait for one."""
        for _ in self._slots:
            await self.read([])

    async def read(self, sources: list[Source]) -> list[Prepared | Refused]:
        """Read and cut documents; return one outcome each, in order."""
        async with self._slot() as slot:
            lost = await slot.run(sources)
            if not isinstance(lost, str):
                return lost
            if len(sources) == 1:
                return [Refused(f"{sources[0].name}: {lost}")]
        log.warning("read_batch_lost", documents=len(sources), reason=lost)
        return [outcome for source in sources for outcome in await self.read([source])]

    def close(self) -> None:
        """End all reading processes at once."""
        for slot in self._slots:
            slot.kill()

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[_Slot]:
        slot = await self._idle.get()
        try:
            yield slot
        except BaseException:
            slot.kill()  # whatever it still does, nobody waits for it
            raise
        finally:
            self._idle.put_nowait(slot)


class _Slot:
    """One reading process and the executor that feeds it."""

    def __init__(self, config: IngestConfig, chunking: ChunkingConfig) -> None:
        self._config = config
        self._chunking = chunking
        self._executor: ProcessPoolExecutor | None = None
        self._pid = 0

    async def run(self, sources: list[Source]) -> list[Prepared | Refused] | str:
        """Return the outcomes, or why the process was lost."""
        timeout_s = self._config.read_timeout_s
        try:
            executor = await self._started()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(timeout_s * max(1, len(sources))):
                return await loop.run_in_executor(executor, prepare, sources)
        except TimeoutError:
            self.kill()
            return f"reading took longer than ingest.read_timeout_s = {timeout_s}"
        except BrokenProcessPool:
            self.kill()
            return (
                "its reading process died, most likely out of memory "
                f"(ingest.memory_bytes = {self._config.memory_bytes})"
            )

    async def _started(self) -> ProcessPoolExecutor:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                1,
                # Not forkserver: it survives a kill -9 of this process, with our descriptors.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=start_process,
                initargs=(self._chunking, self._config.memory_bytes),
            )
            loop = asyncio.get_running_loop()
            self._pid = await loop.run_in_executor(self._executor, process_id)
        return self._executor

    def kill(self) -> None:
        """End the process; the next ``run`` starts another."""
        if self._executor is None:
            return
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = None
        self._pid = 0
