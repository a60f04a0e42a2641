"""The job loop: every job ends, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
import pytest

from ragserve.config import Config
from ragserve.embed.hashing import HashingModel
from ragserve.errors import Conflict, UpstreamFailed
from ragserve.ingest import loop as loop_module
from ragserve.ingest.loop import JobLoop, _batches
from ragserve.store.collections import CHANGED, NEW_JOBS, Collection
from ragserve.store.documents import find_document
from ragserve.store.jobs import Job, NewDocument, enqueue
from ragserve.store.listen import Listener
from ragserve.store.pool import Database
from tests.conftest import configured

WAIT_S = 30.0


class ScriptedEmbedder:
    """Embeds, after the failures it was given."""

    name = "hashing-384"
    dimensions = 384

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return HashingModel().encode(texts)

    async def close(self) -> None:
        pass


@asynccontextmanager
async def looping(
    database: Database, embedder: ScriptedEmbedder, config: Config
) -> AsyncIterator[asyncio.Event]:
    """Run a job loop; the event is set at every change of a document or job."""
    loop = JobLoop(database, embedder, config.ingest, config.chunking)
    changed = asyncio.Event()

    async def connected() -> None:
        changed.set()
        loop.wake()

    handlers = {CHANGED: lambda _: changed.set(), NEW_JOBS: loop.wake}
    listener = Listener(database, handlers, on_connect=connected)
    listener.start()
    await listener.connected.wait()
    running = asyncio.create_task(loop.run())
    try:
        yield changed
    finally:
        loop.stop()
        await running
        await listener.stop()


async def state_of(
    database: Database, collection: Collection, changed: asyncio.Event, document: str
) -> tuple[str, str | None]:
    """Wait until a document is ready or failed; return its state and error."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = await find_document(database, collection, document)
            if found is not None and found.state in ("ready", "failed"):
                return found.state, found.error
            changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), 0.5)


def text(name: str, content: bytes = b"some words") -> NewDocument:
    """A plain text document."""
    return NewDocument(id=name, name=name, content=content)


async def test_a_transient_failure_is_tried_again(
    database: Database, collection: Collection
) -> None:
    """A failing embedder delays a document and does not lose it."""
    embedder = ScriptedEmbedder(UpstreamFailed("embedder: status 500"))
    await enqueue(database, collection, [text("a.txt")], salt=b"")
    async with looping(database, embedder, configured()) as changed:
        assert await state_of(database, collection, changed, "a.txt") == ("ready", None)
    assert embedder.calls == 2


async def test_a_lasting_failure_ends_as_failed(database: Database, collection: Collection) -> None:
    """After the last try the job is failed, with the error of that try."""
    embedder = ScriptedEmbedder(*[UpstreamFailed(f"embedder: try {n}") for n in range(9)])
    await enqueue(database, collection, [text("a.txt")], salt=b"")
    async with looping(database, embedder, configured(ingest__attempts=1)) as changed:
        state = await state_of(database, collection, changed, "a.txt")
    assert state == ("failed", "embedder: try 0")


async def test_a_documents_own_fault_is_final(database: Database, collection: Collection) -> None:
    """What trying again cannot mend is not tried again."""
    embedder = ScriptedEmbedder(Conflict("other vectors"))
    await enqueue(database, collection, [text("a.txt"), text("b.bin", b"\0\1\2")], salt=b"")
    async with looping(database, embedder, configured()) as changed:
        states = [await state_of(database, collection, changed, n) for n in ("a.txt", "b.bin")]
    assert states == [
        ("failed", "other vectors"),
        ("failed", "b.bin: the content is binary, not text"),
    ]


async def test_jobs_survive_the_loss_of_all_connections(
    database: Database, collection: Collection
) -> None:
    """When the database drops every session, the loop registers again and goes on."""
    embedder = ScriptedEmbedder()
    async with looping(database, embedder, configured()) as changed:
        await enqueue(database, collection, [text("a.txt")], salt=b"")
        assert (await state_of(database, collection, changed, "a.txt"))[0] == "ready"
        await database.fetch(
            # With a timeout it returns when they are gone, not when they have been told.
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await enqueue(database, collection, [text("b.txt")], salt=b"")
        assert (await state_of(database, collection, changed, "b.txt"))[0] == "ready"


async def test_a_loop_that_has_just_begun_stops_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told so while it registers, it does not sleep over it."""
    monkeypatch.setattr(loop_module, "LOOK_AGAIN_S", 600.0)
    config = configured()
    loop = JobLoop(database, ScriptedEmbedder(), config.ingest, config.chunking)
    register = loop._runner.register

    async def registering() -> None:
        loop.stop()
        await register()

    monkeypatch.setattr(loop._runner, "register", registering)
    async with asyncio.timeout(WAIT_S):
        await loop.run()


def test_small_documents_are_read_together() -> None:
    """Batches keep the order and stay within documents and bytes; a large document is alone."""

    def job(number: int, size: int) -> Job:
        return Job(number, "t", 1, str(number), "n", None, None, None, "{}", b"x" * size, b"", 1)

    jobs = [job(n, 10) for n in range(20)] + [job(20, 300_000), job(21, 10)]
    batches = [[job.id for job in batch] for batch in _batches(jobs)]
    assert batches == [list(range(16)), [16, 17, 18, 19], [20], [21]]
