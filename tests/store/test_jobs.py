"""The queue: nothing lost, nothing twice, newest wins."""

from __future__ import annotations

import os
import signal

import numpy as np

from ragserve.store.collections import Collection, count_collection
from ragserve.store.documents import NewChunk, find_document, store_document
from ragserve.store.jobs import Job, NewDocument, Runner, enqueue, next_due_s
from ragserve.store.pool import Database

VECTOR = np.eye(1, 384, dtype=np.float32)


def document(name: str, text: str = "text") -> NewDocument:
    return NewDocument(id=name, name=name, content=text.encode())


async def store(database: Database, collection: Collection, job: Job, runner: Runner) -> int | None:
    chunks = [NewChunk(job.content.decode())]
    return await store_document(
        database, collection, job, runner.number, title="t", chunks=chunks, embeddings=VECTOR
    )


async def test_claims_are_exclusive_and_oldest_first(
    database: Database, collection: Collection
) -> None:
    """Two runners never get the same job, and jobs come in the order they were enqueued."""
    await enqueue(database, collection, [document(str(n)) for n in range(6)], salt=b"")
    first, second = Runner(database), Runner(database)
    await first.register()
    await second.register()
    claimed = [await first.claim(2), await second.claim(2), await first.claim(9)]
    assert [[job.document_id for job in jobs] for jobs in claimed] == [
        ["0", "1"],
        ["2", "3"],
        ["4", "5"],
    ]
    await first.close()
    await second.close()


async def test_a_dead_runners_jobs_return_at_once(
    database: Database, collection: Collection
) -> None:
    """A job whose runner's session is gone is claimed by the next runner, without a lease."""
    await enqueue(database, collection, [document("a")], salt=b"")
    dead = Runner(database)
    await dead.register()
    (job,) = await dead.claim(1)
    alive = Runner(database)
    await alive.register()
    assert await alive.claim(1) == []
    await dead.close()
    assert await alive.reclaim() == 1
    (again,) = await alive.claim(1)
    assert (again.id, again.attempts) == (job.id, 2)
    assert await store(database, collection, job, dead) is None
    assert await store(database, collection, again, alive) == 1
    assert (await count_collection(database, collection)).documents == 1
    await alive.close()


async def test_a_newer_upload_supersedes_the_one_under_way(
    database: Database, collection: Collection
) -> None:
    """Of two uploads of a document the newer one wins, even if the older finishes later."""
    runner = Runner(database)
    await runner.register()
    await enqueue(database, collection, [document("a", "old")], salt=b"")
    (old,) = await runner.claim(1)
    await enqueue(database, collection, [document("a", "new")], salt=b"")
    (new,) = await runner.claim(1)
    assert await store(database, collection, new, runner) == 1
    assert await store(database, collection, old, runner) is None
    text = await database.fetchval(f"SELECT text FROM {collection.table}")
    assert text == "new"
    await runner.close()


async def test_unchanged_content_makes_no_job(database: Database, collection: Collection) -> None:
    """The same content is skipped; other content, another title or another salt is not."""
    runner = Runner(database)
    await runner.register()
    await enqueue(database, collection, [document("a")], salt=b"1")
    (job,) = await runner.claim(1)
    await store(database, collection, job, runner)
    (same,) = await enqueue(database, collection, [document("a")], salt=b"1")
    (salted,) = await enqueue(database, collection, [document("a")], salt=b"2")
    assert same.job is None
    assert salted.job is not None
    (queued,) = await enqueue(database, collection, [document("a")], salt=b"1")
    assert queued.job is not None, "an unfinished job would still replace the stored content"
    await runner.close()


async def test_a_failed_job_is_visible_with_its_error(
    database: Database, collection: Collection
) -> None:
    """A job that failed for good shows its error until the document is uploaded again."""
    runner = Runner(database)
    await runner.register()
    await enqueue(database, collection, [document("a")], salt=b"")
    (job,) = await runner.claim(1)
    await runner.fail(job, "a.pdf: encrypted")
    found = await find_document(database, collection, "a")
    assert found is not None
    assert (found.state, found.error) == ("failed", "a.pdf: encrypted")
    assert (await count_collection(database, collection)).failed == 1
    await enqueue(database, collection, [document("a")], salt=b"")
    counts = await count_collection(database, collection)
    assert (counts.failed, counts.pending) == (0, 1)
    await runner.close()


async def test_a_retried_job_waits_for_its_time(database: Database, collection: Collection) -> None:
    """A job put back is not claimed before it is due, and the queue knows when that is."""
    runner = Runner(database)
    await runner.register()
    await enqueue(database, collection, [document("a")], salt=b"")
    (job,) = await runner.claim(1)
    await runner.retry(job, "embedder: timeout", 60.0)
    assert await runner.claim(1) == []
    due_s = await next_due_s(database)
    assert due_s is not None
    assert 50 < due_s <= 60
    await runner.close()


async def test_a_runner_leaves_a_server_that_says_nothing(database: Database) -> None:
    """It gives up its claim in a second, and a new one is made when the server speaks again."""
    runner = Runner(database)
    await runner.register()
    number, session = runner.number, runner._session
    assert session is not None
    backend = session.get_server_pid()
    os.kill(backend, signal.SIGSTOP)
    try:
        await runner.close()
    finally:
        os.kill(backend, signal.SIGCONT)
    assert not runner.alive
    await runner.register()
    assert runner.alive
    assert runner.number != number
    await runner.close()
