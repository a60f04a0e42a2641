"""The life of the ingest process: one a data directory, polite to the workers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import structlog

from ragserve.config import Config
from ragserve.embed import open_embedder
from ragserve.errors import RagserveError
from ragserve.host.disk import show_space
from ragserve.host.members import run_directory, this_process
from ragserve.host.notify import Notifier
from ragserve.host.presence import Phase, Presence
from ragserve.host.reload import Reload
from ragserve.host.trials import TrialFiles
from ragserve.ingest.figures import show_figures
from ragserve.ingest.indexing import Indexing
from ragserve.ingest.loop import JobLoop
from ragserve.metrics import DEPENDENCY_UP
from ragserve.store.changes import forget_deletions
from ragserve.store.collections import CHANGED, NEW_JOBS, count_collection, list_collections
from ragserve.store.jobs import prune_jobs
from ragserve.store.listen import Listener
from ragserve.store.pool import Database
from ragserve.store.vectors import ensure_vector_index

log = structlog.get_logger(__name__)

CONNECTIONS = 4
"""More would only queue for the lock of the collection's row."""
MAINTENANCE_S = 15.0
KEEP_DELETIONS_DAYS = 7.0
LOCK_NAME = "ingest.lock"
RELOAD_S = 120.0
"""A process that begins again may take so long to finish what it has and to start."""


async def run_ingest_process(
    config: Config, data_dir: Path, dsn: str, check_reload: Callable[[], object]
) -> bool:
    """Ingest until SIGTERM or SIGINT; a second signal does not wait for what is under way.

    Return whether to begin again: after SIGHUP, if ``check_reload`` does not raise.
    """
    stop = asyncio.Event()
    reload = Reload(check_reload, stop)
    be_polite()
    phase: Phase = "starting"
    directory = run_directory(config.storage, data_dir, os.environ)
    identity = this_process("ingester", os.environ)
    async with (
        Presence(directory, identity, lambda: phase).entered(),
        ingesting(config, data_dir, dsn, polite=True) as jobs,
    ):
        notifier = Notifier(os.environ)
        beating = asyncio.create_task(notifier.beat())
        phase = "ready"
        notifier.ready()
        log.info("ingest_ready", pid=os.getpid())
        await stop.wait()
        phase = "draining"
        if reload.wanted:
            notifier.reloading(RELOAD_S)
        else:
            notifier.send("STOPPING=1")
        log.info("ingest_drains")
        jobs.stop()
        beating.cancel()
        notifier.close()
    log.info("ingest_stopped")
    return reload.decide()


@contextlib.asynccontextmanager
async def ingesting(
    config: Config, data_dir: Path, dsn: str, *, polite: bool = False
) -> AsyncIterator[JobLoop]:
    """Run the job loop and the indexing while the context is open; drain on leaving it."""
    with try_lock(data_dir) as locked:
        if not locked:
            raise RagserveError(f"another ingest process works in {data_dir}")
        database = Database(dsn, config.database, size=CONNECTIONS, polite=polite)
        await database.open()
        # Here batches are the point and nobody waits for a single text.
        embedding = msgspec.structs.replace(config.embedding, window_ms=0.0, queue=2**31)
        trials = TrialFiles(run_directory(config.storage, data_dir, os.environ))
        embedder = await open_embedder(embedding, trials)
        jobs = JobLoop(database, embedder, config.ingest, config.chunking)
        indexing = Indexing(database, data_dir)

        async def catch_up() -> None:
            database.spoke()
            await indexing.check_all()
            jobs.wake()

        listener = Listener(
            database,
            {NEW_JOBS: jobs.wake, CHANGED: indexing.changed},
            on_connect=catch_up,
            on_alive=lambda _: database.spoke(),
            on_silence=database.fell_silent,
        )
        DEPENDENCY_UP.labels("database").set_function(listener.connected.is_set)
        show_space(data_dir)
        try:
            async with asyncio.TaskGroup() as group:
                listener.start()
                indexer = group.create_task(indexing.run(), name="indexing")
                tending = group.create_task(_tend(database, jobs, config), name="maintenance")
                running = group.create_task(jobs.run(), name="jobs")
                try:
                    yield jobs
                finally:
                    jobs.stop()
                    await asyncio.wait([running], timeout=config.server.drain_timeout_s)
                    await _settle(indexing)
                    for task in (running, indexer, tending):
                        task.cancel()
        finally:
            await listener.stop()
            await embedder.close()
            trials.close()
            await database.close()


async def _settle(indexing: Indexing) -> None:
    """Give the index a moment to commit what was stored last."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(indexing.wait_idle(), 5.0)


async def _tend(database: Database, jobs: JobLoop, config: Config) -> None:
    """Build vector indexes that have become due and forget what is old."""
    while True:
        try:
            await show_figures(database)
            await build_vector_indexes(database)
            if jobs.idle:
                await prune_jobs(database, config.ingest.keep_jobs_days)
                await forget_deletions(database, KEEP_DELETIONS_DAYS)
        except RagserveError as error:
            log.warning("maintenance_failed", error=error.message)
        await asyncio.sleep(MAINTENANCE_S)


async def build_vector_indexes(database: Database) -> None:
    """Build the HNSW index of every collection for which it is due."""
    for collection in await list_collections(database):
        counts = await count_collection(database, collection)
        await ensure_vector_index(database, collection, counts.pending)


@contextlib.contextmanager
def try_lock(data_dir: Path) -> Iterator[bool]:
    """Yield whether this process is now the one that ingests in ``data_dir``."""
    data_dir.mkdir(parents=True, exist_ok=True)
    file: IO[bytes]
    with (data_dir / LOCK_NAME).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def be_polite() -> None:
    """Run only when nothing else wants the CPU; a question always goes first.

    SCHED_IDLE rather than nice: a waking worker preempts it at once instead of after its slice.
    The systemd unit sets it itself, since it forbids the system call.
    """
    if os.sched_getscheduler(0) == os.SCHED_IDLE:
        return
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except PermissionError as error:
        log.warning("ingest_competes", error=str(error))
