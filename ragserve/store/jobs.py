"""The queue of documents to ingest, in PostgreSQL.

A job is claimed with ``FOR UPDATE SKIP LOCKED`` and marked with its runner: the number of a
session-level advisory lock that the ingest process holds. When that process dies, its session
ends and the lock is gone, so its jobs can be told apart at once from those of a living process,
without leases and without waiting. A job that two processes run after all (a lost session, not a
lost process) has one effect: whoever stores the document first ends the job, in the same
statement.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Sequence

import asyncpg
import msgspec

from ragserve.errors import Unavailable
from ragserve.store.collections import CHANGED, NEW_JOBS, Collection
from ragserve.store.dial import DRIVER_ERRORS
from ragserve.store.pool import Database, rows_affected

RUNNERS = 0x7261_6A6F  # "rajo": the class of the advisory locks
ERROR_CHARACTERS = 2000
REGISTER_S = 10.0
"""Nobody else holds a lock of a new number."""
# objsubid 2: a lock of two keys, class and number.
_LIVE_RUNNERS = (
    "pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objsubid = 2 AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class NewDocument(msgspec.Struct, frozen=True):
    """A document as it was handed in; ``content`` is its file's bytes."""

    id: str
    name: str
    content: bytes
    content_type: str | None = None
    title: str | None = None
    url: str | None = None
    metadata: bytes = b"{}"

    def content_hash(self, salt: bytes) -> bytes:
        """Hash all that decides what is stored; ``salt`` stands for how it is processed."""
        digest = hashlib.blake2b(salt, digest_size=16)
        for part in (self.content_type, self.title, self.url):
            digest.update(b"\0" if part is None else b"\1" + part.encode() + b"\0")
        digest.update(self.metadata + b"\0")
        digest.update(self.content)
        return digest.digest()


class Enqueued(msgspec.Struct, frozen=True):
    """What became of a document that was handed in; no job if it is unchanged."""

    id: str
    job: int | None


class Job(msgspec.Struct, frozen=True):
    """A claimed job with its document."""

    id: int
    tenant: str
    collection_id: int
    document_id: str
    name: str
    content_type: str | None
    title: str | None
    url: str | None
    metadata: str
    content: bytes
    content_hash: bytes
    attempts: int


async def enqueue(
    database: Database, collection: Collection, documents: Sequence[NewDocument], *, salt: bytes
) -> list[Enqueued]:
    """Commit a job for every document whose content is new; return one result each, in order.

    A newer job of the same document supersedes the older ones.
    """
    hashes = [document.content_hash(salt) for document in documents]
    ids = [document.id for document in documents]
    async with database.connection() as connection, connection.transaction():
        unchanged = await _unchanged(connection, collection, ids, hashes)
        wanted = [i for i, document in enumerate(documents) if document.id not in unchanged]
        new = [documents[i] for i in wanted]
        if new:
            await connection.execute(
                "UPDATE jobs SET state = 'superseded', finished_at = now(), content = NULL"
                " WHERE collection_id = $1 AND document_id = ANY($2)"
                " AND state IN ('queued', 'running', 'failed')",
                collection.id,
                [document.id for document in new],
            )
        rows = await connection.fetch(
            "INSERT INTO jobs (tenant, collection_id, document_id, name, content_type, title,"
            " url, metadata, content, content_hash)"
            " SELECT $1, $2, d.id, d.name, d.content_type, d.title, d.url, d.metadata::jsonb,"
            " d.content, d.hash FROM unnest($3::text[], $4::text[], $5::text[], $6::text[],"
            " $7::text[], $8::text[], $9::bytea[], $10::bytea[]) WITH ORDINALITY"
            " AS d(id, name, content_type, title, url, metadata, content, hash, n)"
            " ORDER BY d.n RETURNING id",
            collection.tenant,
            collection.id,
            [document.id for document in new],
            [document.name for document in new],
            [document.content_type for document in new],
            [document.title for document in new],
            [document.url for document in new],
            [document.metadata.decode() for document in new],
            [document.content for document in new],
            [hashes[i] for i in wanted],
        )
        if new:
            await connection.execute("SELECT pg_notify($1, '')", NEW_JOBS)
    jobs = dict(zip(wanted, (row["id"] for row in rows), strict=True))
    return [Enqueued(document_id, jobs.get(i)) for i, document_id in enumerate(ids)]


async def _unchanged(
    connection: asyncpg.Connection, collection: Collection, ids: list[str], hashes: list[bytes]
) -> set[str]:
    """Return the ids that are stored with that very content and have no job on the way."""
    rows = await connection.fetch(
        "SELECT d.id FROM unnest($2::text[], $3::bytea[]) AS n(id, hash)"
        " JOIN documents d ON d.collection_id = $1 AND d.id = n.id AND d.content_hash = n.hash"
        " WHERE NOT EXISTS (SELECT FROM jobs j WHERE j.collection_id = $1"
        " AND j.document_id = n.id AND j.state IN ('queued', 'running'))",
        collection.id,
        ids,
        hashes,
    )
    return {row["id"] for row in rows}


class Runner:
    """This process's claim on jobs: a number and the session that holds its advisory lock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._session: asyncpg.Connection | None = None
        self.number = 0

    @property
    def alive(self) -> bool:
        """Whether the session, and with it the claim, still holds."""
        return self._session is not None and not self._session.is_closed()

    async def register(self) -> None:
        """Take a number, and return the jobs of dead runners to the queue."""
        await self.close()
        self._session = await self._database.connect()
        self.number = secrets.randbits(31)
        lock = "SELECT pg_advisory_lock($1, $2)"
        try:
            await self._session.execute(lock, RUNNERS, self.number, timeout=REGISTER_S)
        except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"database: cannot register: {reason}") from error
        await self.reclaim()

    async def reclaim(self) -> int:
        """Return the jobs of dead runners to the queue; return how many."""
        tag = await self._database.execute(
            "UPDATE jobs SET state = 'queued', runner = NULL WHERE state = 'running'"
            f" AND runner NOT IN (SELECT objid::bigint FROM {_LIVE_RUNNERS})",
            RUNNERS,
        )
        return rows_affected(tag)

    async def claim(self, limit: int) -> list[Job]:
        """Take up to ``limit`` jobs that are due, oldest first."""
        rows = await self._database.fetch(
            "UPDATE jobs SET state = 'running', runner = $1, attempts = attempts + 1"
            " WHERE id IN (SELECT id FROM jobs WHERE state = 'queued' AND run_after <= now()"
            "  ORDER BY run_after, id LIMIT $2 FOR UPDATE SKIP LOCKED)"
            " RETURNING id, tenant, collection_id, document_id, name, content_type, title, url,"
            " metadata, content, content_hash, attempts",
            self.number,
            limit,
        )
        return sorted((Job(**row) for row in rows), key=lambda job: job.id)

    async def fail(self, job: Job, error: str) -> None:
        """End a job for good; its error stays visible."""
        await self._database.execute(
            "WITH failed AS (UPDATE jobs SET state = 'failed', error = $3, finished_at = now(),"
            "  content = NULL WHERE id = $1 AND runner = $2 AND state = 'running'"
            "  RETURNING collection_id)"
            # No new version, but those who wait for the job want to know.
            " SELECT pg_notify($4, collection_id || ' 0') FROM failed",
            job.id,
            self.number,
            error[:ERROR_CHARACTERS],
            CHANGED,
        )

    async def retry(self, job: Job, error: str, delay_s: float) -> None:
        """Return a job to the queue, due in ``delay_s`` seconds."""
        await self._database.execute(
            "UPDATE jobs SET state = 'queued', runner = NULL, error = $3,"
            " run_after = now() + make_interval(secs => $4)"
            " WHERE id = $1 AND runner = $2 AND state = 'running'",
            job.id,
            self.number,
            error[:ERROR_CHARACTERS],
            delay_s,
        )

    async def close(self) -> None:
        """Give up the claim; jobs still running are taken up by whoever comes next."""
        session, self._session = self._session, None
        if session is not None:
            # Its server may be gone, or say nothing: then it is gone for us.
            with contextlib.suppress(OSError, TimeoutError, *DRIVER_ERRORS):
                await session.close(timeout=1.0)


async def next_due_s(database: Database) -> float | None:
    """Return the seconds until a queued job is due; None if nothing is queued."""
    seconds = await database.fetchval(
        "SELECT extract(epoch FROM min(run_after) - now())::float FROM jobs WHERE state = 'queued'"
    )
    return None if seconds is None else max(0.0, seconds)


async def overdue_s(database: Database) -> float:
    """Return for how many seconds the first queued job has been due; 0 if none is."""
    seconds = await database.fetchval(
        "SELECT extract(epoch FROM now() - min(run_after))::float FROM jobs WHERE state = 'queued'"
    )
    return 0.0 if seconds is None else max(0.0, seconds)


async def count_jobs(database: Database) -> dict[str, int]:
    """Return how many documents are queued, running, and failed."""
    rows = await database.fetch(
        "SELECT state, count(*) FROM jobs WHERE state IN ('queued', 'running', 'failed')"
        " GROUP BY state"
    )
    return {"queued": 0, "running": 0, "failed": 0, **{row["state"]: row["count"] for row in rows}}


async def prune_jobs(database: Database, keep_days: float) -> int:
    """Forget jobs that finished long ago; failed ones stay until superseded."""
    tag = await database.execute(
        "DELETE FROM jobs WHERE state IN ('done', 'superseded')"
        " AND finished_at < now() - make_interval(secs => $1)",
        keep_days * 86400,
    )
    return rows_affected(tag)


async def count_runners(database: Database) -> int:
    """Return how many ingest processes are alive, on all hosts."""
    count: int = await database.fetchval(
        f"SELECT count(*) FROM {_LIVE_RUNNERS}",
        RUNNERS,
    )
    return count
