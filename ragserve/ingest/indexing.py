"""Keeps the host's BM25 index in step with PostgreSQL.

A notification says which collection changed; everything since the index's own version is then
read and committed as one step. What arrives during a commit becomes the next step. A change
after a quiet moment is searchable at once, a stream of changes every ``COMMIT_INTERVAL_S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import msgspec
import structlog

from ragserve.errors import Unavailable
from ragserve.index import CollectionWriter, Record, index_directory
from ragserve.ingest.chunk import searchable_text
from ragserve.metrics import INDEX_COMMITS
from ragserve.store.changes import ChangedChunk, Changes, forgotten_version, read_changes
from ragserve.store.collections import Collection, find_collection_by_id, list_collections
from ragserve.store.pool import Database

log = structlog.get_logger(__name__)

COMMIT_INTERVAL_S = 0.25
STEP_DOCUMENTS = 500
WRITERS = 8
"""Indexes kept open for writing; each costs a thread and its buffer."""
RETRY_S = 1.0


class Indexing:
    """Applies the changes of all collections to their indexes, one at a time."""

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._data_dir = data_dir
        self._writers: dict[int, CollectionWriter] = {}
        self._due: dict[int, None] = {}
        self._work = asyncio.Event()
        self._idle = asyncio.Event()

    def changed(self, payload: str) -> None:
        """Take a notification: ``<collection id> <version>``."""
        self._due[int(payload.partition(" ")[0])] = None
        self._work.set()
        self._idle.clear()

    async def check_all(self) -> None:
        """Look at every collection, for what was missed; drop indexes of deleted ones."""
        collections = await list_collections(self._database)
        known = {str(collection.id) for collection in collections}
        for directory in (self._data_dir / "index").glob("*/"):
            if directory.name not in known:
                self._forget(int(directory.name))
        for collection in collections:
            self._due[collection.id] = None
        self._work.set()
        self._idle.clear()

    async def wait_idle(self) -> None:
        """Return when every change known so far is committed."""
        await self._idle.wait()

    async def run(self) -> None:
        """Index until cancelled."""
        try:
            while True:
                if not self._due:
                    self._idle.set()
                    self._work.clear()
                    await self._work.wait()
                for collection_id in list(self._due):
                    del self._due[collection_id]
                    await self._catch_up(collection_id)
                await asyncio.sleep(COMMIT_INTERVAL_S)
        finally:
            for collection_id in list(self._writers):
                self._close(collection_id)

    async def _catch_up(self, collection_id: int) -> None:
        try:
            collection = await find_collection_by_id(self._database, collection_id)
            if collection is None:
                self._forget(collection_id)
                return
            writer = await self._writer(collection)
            while changes := await self._next_changes(collection, writer):
                await asyncio.to_thread(_apply, writer, changes)
                INDEX_COMMITS.inc()
            if writer.version < collection.version:
                # Versions without changes: forgotten deletions, or answers to be given anew.
                await asyncio.to_thread(writer.commit, collection.version)
        except Unavailable as error:
            log.warning("index_waits", collection=collection_id, error=error.message)
            self._due[collection_id] = None
            await asyncio.sleep(RETRY_S)
        except (OSError, ValueError) as error:
            # A full disk, or an index damaged under the writer: opening it again decides.
            log.exception("index_failed", collection=collection_id, error=str(error))
            self._close(collection_id)
            self._due[collection_id] = None
            await asyncio.sleep(RETRY_S)

    async def _next_changes(
        self, collection: Collection, writer: CollectionWriter
    ) -> Changes | None:
        return await read_changes(self._database, collection, writer.version, limit=STEP_DOCUMENTS)

    async def _writer(self, collection: Collection) -> CollectionWriter:
        writer = self._writers.pop(collection.id, None)
        if writer is None:
            while len(self._writers) >= WRITERS:
                self._close(next(iter(self._writers)))
            directory = index_directory(self._data_dir, collection.id)
            oldest = await forgotten_version(self._database, collection)
            writer = await asyncio.to_thread(_open, directory, collection, oldest)
        self._writers[collection.id] = writer  # last used is last
        return writer

    def _close(self, collection_id: int) -> None:
        writer = self._writers.pop(collection_id, None)
        if writer is not None:
            with contextlib.suppress(ValueError):
                writer.close()

    def _forget(self, collection_id: int) -> None:
        self._close(collection_id)
        directory = index_directory(self._data_dir, collection_id)
        shutil.rmtree(directory, ignore_errors=True)
        directory.with_suffix(".lock").unlink(missing_ok=True)


def _open(directory: Path, collection: Collection, oldest: int) -> CollectionWriter:
    writer = CollectionWriter(directory, collection.language, collection.born)
    if 0 < writer.version < oldest or writer.version > collection.version:
        # It missed deletions that are forgotten, or is ahead of a database that was brought back.
        writer.close()
        shutil.rmtree(directory)
        writer = CollectionWriter(directory, collection.language, collection.born)
    if writer.version == 0 and collection.version:
        log.info("index_rebuilt", collection=collection.name, version=collection.version)
    return writer


def _apply(writer: CollectionWriter, changes: Changes) -> None:
    writer.remove(changes.removed)
    for chunk in changes.chunks:
        body = searchable_text(chunk.title, chunk.heading, chunk.text)
        writer.add(chunk.id, chunk.document_key, body, _record(chunk))
    writer.commit(changes.version)


def _record(chunk: ChangedChunk) -> Record:
    return Record(
        document_id=chunk.document_id,
        chunk_id=str(chunk.id),
        title=chunk.title,
        url=chunk.url,
        text=chunk.text,
        metadata=msgspec.Raw(chunk.metadata.encode()),
        position=chunk.position,
        page=chunk.page,
        heading=chunk.heading,
    )
