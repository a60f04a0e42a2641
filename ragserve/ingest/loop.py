"""The job loop: claims jobs, reads, embeds and stores their documents, many at a time.

Every document is a task of its own; the stages bound themselves. Reading happens in batches in
other processes, embedding gathers passages of many documents into the model's batches, storing
shares a few connections. A job ends in one of four ways: stored, superseded, refused for good
(the document is to blame), or put back to be tried again (something else is).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import asyncpg
import structlog

from ragserve.config import ChunkingConfig, IngestConfig
from ragserve.embed import Embedder
from ragserve.errors import RagserveError, Unavailable
from ragserve.flow.backoff import backoff_s
from ragserve.ingest.chunk import searchable_text
from ragserve.ingest.prepare import Prepared, Refused, Source
from ragserve.ingest.readers import Readers
from ragserve.metrics import INGEST_CHUNKS, INGEST_DOCUMENTS, INGEST_STAGE_SECONDS
from ragserve.store.collections import Collection, check_embedder, find_collection_by_id
from ragserve.store.documents import store_document
from ragserve.store.jobs import Job, Runner, next_due_s
from ragserve.store.pool import Database

log = structlog.get_logger(__name__)

BATCH_DOCUMENTS = 16
BATCH_BYTES = 256 * 1024
"""Documents are read together up to these; a larger one is read alone."""
RETRY_BASE_S = 1.0
RETRY_CAP_S = 300.0
LOOK_AGAIN_S = 10.0
"""The queue is looked at this often even if no notification came."""


class JobLoop:
    """Runs the jobs of the store until told to stop."""

    def __init__(
        self,
        database: Database,
        embedder: Embedder,
        config: IngestConfig,
        chunking: ChunkingConfig,
    ) -> None:
        self._database = database
        self._embedder = embedder
        self._config = config
        self._readers = Readers(config, chunking)
        self._runner = Runner(database)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        # Documents of a collection queue for its row in PostgreSQL anyway, and there each waiting
        # costs: one or two at a time store 2,000 documents a second, eight at a time 1,200.
        self._storing = asyncio.Semaphore(2)
        self._lost_track = False
        self._rng = random.Random()  # noqa: S311 - jitter

    @property
    def idle(self) -> bool:
        """Whether no document is under way."""
        return not self._under_way

    def wake(self, _payload: str = "") -> None:
        """Look at the queue now."""
        self._wake.set()

    def stop(self) -> None:
        """Claim no more; ``run`` returns when what is under way is done."""
        self._stopping.set()
        self._wake.set()

    async def run(self, on_idle: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run jobs until ``stop``. Waits for the database as long as it takes."""
        warming = asyncio.create_task(self._readers.warm())
        try:
            while not self._stopping.is_set():
                try:
                    await self._step(on_idle)
                except Unavailable as error:
                    self._lost_track = True  # it may be another server that comes back
                    log.warning("ingest_waits", error=error.message)
                    await self._pause(RETRY_BASE_S)
            if self._under_way:
                await asyncio.wait(self._under_way)
        finally:
            for task in self._under_way:
                task.cancel()
            warming.cancel()
            self._readers.close()
            await self._runner.close()

    async def _step(self, on_idle: Callable[[], Awaitable[None]] | None) -> None:
        self._wake.clear()  # before the first wait: what is told during it is not to be missed
        if not self._runner.alive or self._lost_track:
            # A new number: what the old one still holds returns to the queue.
            await self._runner.register()
            self._lost_track = False
        room = self._config.documents - len(self._under_way)
        jobs = await self._runner.claim(room) if room > 0 else []
        for batch in _batches(jobs):
            self._start(batch)
        if jobs:
            await self._room()
        elif self._under_way:
            await self._pause(LOOK_AGAIN_S)
        else:
            if on_idle is not None:
                await on_idle()
            await self._runner.reclaim()
            due_s = await next_due_s(self._database)
            await self._pause(LOOK_AGAIN_S if due_s is None else min(due_s, LOOK_AGAIN_S))

    async def _room(self) -> None:
        """Wait until half of the places are free, so that claims come in batches."""
        while len(self._under_way) > self._config.documents // 2:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    async def _pause(self, seconds: float) -> None:
        """Wait for a wake-up, a finished document or the time."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def _start(self, batch: list[Job]) -> None:
        task = asyncio.create_task(self._run_batch(batch))
        self._under_way.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lost_track = True
            if isinstance(error, Unavailable):
                log.warning("ingest_waits", error=error.message)
            else:
                log.error("ingest_task_failed", exc_info=error)

    async def _run_batch(self, jobs: list[Job]) -> None:
        sources = [Source(job.name, job.content, job.content_type, job.title) for job in jobs]
        with INGEST_STAGE_SECONDS.labels("read").time():
            outcomes = await self._readers.read(sources)
        collections: dict[int, Collection | None] = {}
        for number in {job.collection_id for job in jobs}:
            collections[number] = await find_collection_by_id(self._database, number)
        async with asyncio.TaskGroup() as group:
            for job, outcome in zip(jobs, outcomes, strict=True):
                collection = collections[job.collection_id]
                if collection is not None:  # else deleted meanwhile, its jobs with it
                    group.create_task(self._run_job(job, collection, outcome))

    async def _run_job(self, job: Job, collection: Collection, outcome: Prepared | Refused) -> None:
        """Bring one job to its end; only the loss of the database leaves it to another runner."""
        try:
            if isinstance(outcome, Refused):
                await self._fail(job, outcome.reason, final=True)
            else:
                await self._store(job, collection, outcome)
        except RagserveError as error:
            await self._fail(job, error.message, final=error.status < 500)
        except (asyncpg.PostgresError, OSError, RuntimeError, ValueError) as error:
            log.exception("ingest_failed", document=job.document_id, job=job.id)
            await self._fail(job, f"{type(error).__name__}: {error}", final=False)

    async def _store(self, job: Job, collection: Collection, prepared: Prepared) -> None:
        check_embedder(collection, self._embedder.name, self._embedder.dimensions)
        texts = [
            searchable_text(prepared.title, chunk.heading, chunk.text) for chunk in prepared.chunks
        ]
        with INGEST_STAGE_SECONDS.labels("embed").time():
            embeddings = await self._embedder.embed(texts)
        with INGEST_STAGE_SECONDS.labels("store").time():
            async with self._storing:
                version = await store_document(
                    self._database,
                    collection,
                    job,
                    self._runner.number,
                    title=prepared.title,
                    chunks=prepared.chunks,
                    embeddings=embeddings,
                )
        INGEST_DOCUMENTS.labels("superseded" if version is None else "stored").inc()
        INGEST_CHUNKS.inc(0 if version is None else len(prepared.chunks))
        log.debug(
            "document_superseded" if version is None else "document_stored",
            document=job.document_id,
            collection=collection.name,
            job=job.id,
            chunks=len(prepared.chunks),
            version=version,
        )

    async def _fail(self, job: Job, error: str, *, final: bool) -> None:
        if final or job.attempts >= self._config.attempts:
            log.warning("document_failed", document=job.document_id, job=job.id, error=error)
            INGEST_DOCUMENTS.labels("failed").inc()
            await self._record(self._runner.fail(job, error))
        else:
            delay_s = backoff_s(job.attempts, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=self._rng)
            log.info("document_retried", document=job.document_id, job=job.id, error=error)
            INGEST_DOCUMENTS.labels("retried").inc()
            await self._record(self._runner.retry(job, error, delay_s))

    async def _record(self, write: Awaitable[None]) -> None:
        try:
            await write
        except Unavailable as error:
            self._lost_track = True
            log.warning("job_state_not_recorded", error=error.message)


def _batches(jobs: list[Job]) -> list[list[Job]]:
    """Group jobs, in order, into batches that are read together."""
    batches: list[list[Job]] = []
    size = 0
    for job in jobs:
        size += len(job.content)
        if not batches or len(batches[-1]) == BATCH_DOCUMENTS or size > BATCH_BYTES:
            batches.append([])
            size = len(job.content)
        batches[-1].append(job)
    return batches
