"""``ingest``: files and folders into the queue, and progress until they are searchable."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import click
import msgspec
import structlog

from ragserve.cli.files import Found, batches, find_files
from ragserve.cli.progress import Progress
from ragserve.cli.remote import Remote
from ragserve.cli.upload import upload
from ragserve.config import Config
from ragserve.embed import open_embedder
from ragserve.errors import EXIT_FAILURE
from ragserve.flow.principal import DEFAULT_TENANT
from ragserve.handlers.services import ingest_salt
from ragserve.index import CollectionIndex, index_directory
from ragserve.ingest.run import build_vector_indexes, ingesting, try_lock
from ragserve.store.collections import Collection, ensure_collection
from ragserve.store.documents import job_states
from ragserve.store.embedded import database_dsn
from ragserve.store.jobs import enqueue
from ragserve.store.migrate import prepare_database
from ragserve.store.pool import Database

LOOK_S = 0.25
INDEX_WAIT_S = 10.0


def run(
    config: Config, data_dir: Path, paths: tuple[Path, ...], collection: str, remote: Remote | None
) -> int:
    """Take in ``paths``; return 0 if anything is in, else ``EXIT_FAILURE``."""
    found = find_files(paths, config.limits.document_bytes)
    progress = Progress(len(found.files))
    if not found.files:
        click.echo("nothing to take in: no file of a known kind was found", err=True)
        _report(found, progress)
        return EXIT_FAILURE
    structlog.configure(processors=[_unless_reported, *structlog.get_config()["processors"]])
    try:
        with progress:
            if remote is not None:
                asyncio.run(upload(remote, collection, found, progress))
            else:
                data_dir.mkdir(parents=True, exist_ok=True)
                with database_dsn(config.database.dsn, data_dir) as dsn:
                    asyncio.run(_ingest_here(config, data_dir, dsn, collection, found, progress))
    except KeyboardInterrupt:
        click.echo(
            f"interrupted: {progress.finished} of {len(found.files)} documents are in; "
            "the same command goes on from there",
            err=True,
        )
        raise click.Abort from None
    _report(found, progress)
    return 0 if progress.stored or progress.unchanged else EXIT_FAILURE


def _unless_reported(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Keep what the report at the end says out of the log."""
    if event["event"] == "document_failed":
        raise structlog.DropEvent
    return event


async def _ingest_here(
    config: Config, data_dir: Path, dsn: str, name: str, found: Found, progress: Progress
) -> None:
    await prepare_database(dsn, config.database.connect_timeout_s)
    database = Database(dsn, config.database, size=2)
    await database.open()
    try:
        async with _ingest_process(config, data_dir, dsn):
            embedder = await open_embedder(config.embedding)
            collection = await ensure_collection(
                database,
                DEFAULT_TENANT,
                name,
                embedder=embedder.name,
                dimensions=embedder.dimensions,
                language=config.search.language,
            )
            chunking = config.chunking
            salt = ingest_salt(embedder.name, chunking.max_tokens, chunking.overlap_tokens)
            await embedder.close()
            jobs: dict[int, str] = {}
            for batch in batches(found):
                for item in await enqueue(database, collection, batch, salt=salt):
                    if item.job is None:
                        progress.unchanged_one()
                    else:
                        jobs[item.job] = item.id
                await _note_finished(database, collection, jobs, progress)
            version = 0
            while jobs:
                await asyncio.sleep(LOOK_S)
                version = max(version, await _note_finished(database, collection, jobs, progress))
            await _wait_indexed(data_dir, collection, version)
            if version:
                await build_vector_indexes(database)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def _ingest_process(config: Config, data_dir: Path, dsn: str) -> AsyncIterator[None]:
    """Be the ingest process while the context is open, unless a server's is at work here."""
    with try_lock(data_dir) as free:
        pass
    if not free:
        yield
        return
    async with ingesting(config, data_dir, dsn):
        yield


async def _note_finished(
    database: Database, collection: Collection, jobs: dict[int, str], progress: Progress
) -> int:
    """Take finished jobs out of ``jobs``; return the highest version they led to."""
    version = 0
    states = {state.id: state for state in await job_states(database, collection, list(jobs))}
    for job, document_id in list(jobs.items()):
        state = states.get(job)
        if state is not None and state.state in ("queued", "running"):
            continue
        del jobs[job]
        if state is not None and state.state == "failed":
            progress.failed_one(document_id, state.error or "unknown error")
        else:
            progress.stored_one()
            version = max(version, (state.version if state else None) or 0)
    return version


async def _wait_indexed(data_dir: Path, collection: Collection, version: int) -> None:
    """Wait a moment until the BM25 index has what was stored last."""
    async with asyncio.timeout(INDEX_WAIT_S):
        while _indexed_version(data_dir, collection) < version:  # noqa: ASYNC110 - a file
            await asyncio.sleep(LOOK_S)


def _indexed_version(data_dir: Path, collection: Collection) -> int:
    try:
        state = CollectionIndex(index_directory(data_dir, collection.id)).state
    except (ValueError, OSError, msgspec.MsgspecError):
        return -1
    return state.version if state.born == collection.born else -1


def _report(found: Found, progress: Progress) -> None:
    click.echo(progress.summary())
    for name, reason in [*found.refused, *progress.failures]:
        click.echo(f"  {reason if name in reason else f'{name}: {reason}'}", err=True)
    if found.ignored:
        kinds = Counter(path.suffix or "without suffix" for path in found.ignored)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))
        click.echo(f"ignored {len(found.ignored)} files of other kinds: {listed}", err=True)
