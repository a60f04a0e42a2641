"""Documents: stored, replaced and deleted, each in one transaction that raises the version."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt
from pgvector import HalfVector

from ragserve.store.collections import CHANGED, Collection
from ragserve.store.jobs import Job
from ragserve.store.pool import Database


class NewChunk(msgspec.Struct, frozen=True):
    """A passage as it is stored; its position is its place in the list."""

    text: str
    page: int | None = None
    heading: str | None = None


class DocumentRow(msgspec.Struct, frozen=True):
    """A document and its latest job; ``state`` is that of the newest content."""

    id: str
    state: Literal["queued", "running", "ready", "failed"]
    job_id: int | None
    title: str | None
    url: str | None
    metadata: str
    chunks: int
    version: int | None
    attempts: int
    error: str | None
    created_at: dt.datetime
    updated_at: dt.datetime


# One statement is one round trip and one transaction. The job row gates everything: if it is no
# longer ours (superseded, or stored by another runner), nothing happens. The collection's row
# comes last in the join order of nothing: its lock is held from here to the commit only.
_STORE = """
WITH job AS (
    UPDATE jobs SET state = 'done', content = NULL, error = NULL, finished_at = now()
    WHERE id = $1 AND runner = $2 AND state = 'running'
    RETURNING id, tenant, collection_id, document_id, url, metadata, content_hash
), raised AS (
    UPDATE collections SET version = version + 1 FROM job
    WHERE collections.id = job.collection_id
    RETURNING collections.id, collections.version
), document AS (
    INSERT INTO documents AS d (tenant, collection_id, id, title, url, metadata, content_hash,
                                job_id, chunks, version)
    SELECT job.tenant, job.collection_id, job.document_id, $3, job.url, job.metadata,
           job.content_hash, job.id, cardinality($4::text[]), raised.version
    FROM job, raised
    ON CONFLICT (collection_id, id) DO UPDATE SET
        title = excluded.title, url = excluded.url, metadata = excluded.metadata,
        content_hash = excluded.content_hash, job_id = excluded.job_id,
        chunks = excluded.chunks, version = excluded.version, updated_at = now()
    RETURNING d.key, d.tenant, d.collection_id, d.version
), removed AS (
    DELETE FROM {table} USING document WHERE document_key = document.key
), added AS (
    INSERT INTO {table} (tenant, collection_id, document_key, position, page, heading, text,
                         embedding)
    SELECT document.tenant, document.collection_id, document.key, c.n - 1, c.page, c.heading,
           c.text, c.embedding
    FROM document, unnest($4::text[], $5::int[], $6::text[], $7::halfvec[])
         WITH ORDINALITY AS c(text, page, heading, embedding, n)
)
SELECT version, pg_notify($8, collection_id || ' ' || version) FROM document
"""


async def store_document(
    database: Database,
    collection: Collection,
    job: Job,
    runner: int,
    *,
    title: str,
    chunks: Sequence[NewChunk],
    embeddings: npt.NDArray[np.float32],
) -> int | None:
    """Replace a document by the job's content and end the job; return the new version.

    ``embeddings`` has shape (chunks, dimensions) and unit rows. Returns None, without any effect,
    if the job was superseded or ended by someone else.
    """
    version: int | None = await database.fetchval(
        _STORE.format(table=collection.table),
        job.id,
        runner,
        title,
        [chunk.text for chunk in chunks],
        [chunk.page for chunk in chunks],
        [chunk.heading for chunk in chunks],
        [HalfVector(row) for row in embeddings],
        CHANGED,
    )
    return version


async def delete_document(database: Database, collection: Collection, document_id: str) -> bool:
    """Delete a document, its chunks and its unfinished jobs; return whether there was any."""
    if "\0" in document_id:
        return False
    async with database.connection() as connection, connection.transaction():
        jobs = await connection.fetch(
            "UPDATE jobs SET state = 'superseded', content = NULL, finished_at = now()"
            " WHERE collection_id = $1 AND document_id = $2"
            " AND state IN ('queued', 'running', 'failed') RETURNING id",
            collection.id,
            document_id,
        )
        key = await connection.fetchval(
            "DELETE FROM documents WHERE collection_id = $1 AND id = $2 RETURNING key",
            collection.id,
            document_id,
        )
        if key is None:
            return bool(jobs)
        await connection.execute(f"DELETE FROM {collection.table} WHERE document_key = $1", key)
        await connection.execute(
            "WITH raised AS (UPDATE collections SET version = version + 1 WHERE id = $1"
            "  RETURNING id, tenant, version),"
            " deleted AS (INSERT INTO deletions (collection_id, version, tenant, document_key)"
            "  SELECT id, version, tenant, $2 FROM raised)"
            " SELECT pg_notify($3, id || ' ' || version) FROM raised",
            collection.id,
            key,
            CHANGED,
        )
    return True


_SELECT = """
SELECT coalesce(d.id, j.document_id) AS id,
       CASE WHEN j.state IS NULL OR j.state IN ('done', 'superseded') THEN 'ready'
            ELSE j.state END AS state,
       j.id AS job_id, coalesce(d.title, j.title, j.name) AS title, coalesce(d.url, j.url) AS url,
       coalesce(d.metadata, j.metadata)::text AS metadata, coalesce(d.chunks, 0) AS chunks,
       d.version, coalesce(j.attempts, 0) AS attempts, j.error,
       coalesce(d.created_at, j.created_at) AS created_at,
       coalesce(d.updated_at, j.created_at) AS updated_at
"""


async def find_document(
    database: Database, collection: Collection, document_id: str
) -> DocumentRow | None:
    """Return a document that is stored, on its way, or failed; None if there is none."""
    if "\0" in document_id:  # PostgreSQL cannot even be asked
        return None
    row = await database.fetchrow(
        _SELECT + " FROM (SELECT * FROM documents WHERE collection_id = $1 AND id = $2) d"
        " FULL JOIN (SELECT * FROM jobs WHERE collection_id = $1 AND document_id = $2"
        "  ORDER BY id DESC LIMIT 1) j ON true"
        " WHERE d.id IS NOT NULL OR j.state IN ('queued', 'running', 'failed')",
        collection.id,
        document_id,
    )
    return DocumentRow(**row) if row else None


async def list_documents(
    database: Database, collection: Collection, *, after: str, limit: int
) -> list[DocumentRow]:
    """Return up to ``limit`` documents with ids above ``after``, in the order of their ids."""
    rows = await database.fetch(
        "WITH ids AS (SELECT id FROM (SELECT id FROM documents"
        "   WHERE collection_id = $1 AND id > $2"
        "  UNION SELECT document_id FROM jobs WHERE collection_id = $1 AND document_id > $2"
        "   AND state IN ('queued', 'running', 'failed')) u ORDER BY id LIMIT $3)"
        + _SELECT
        + " FROM ids LEFT JOIN documents d ON d.collection_id = $1 AND d.id = ids.id"
        " LEFT JOIN LATERAL (SELECT * FROM jobs WHERE collection_id = $1"
        "  AND document_id = ids.id ORDER BY id DESC LIMIT 1) j ON true ORDER BY ids.id",
        collection.id,
        after,
        limit,
    )
    return [DocumentRow(**row) for row in rows]


class JobState(msgspec.Struct, frozen=True):
    """How far a job is; ``version`` is its document's once it is stored."""

    id: int
    state: str
    error: str | None
    version: int | None


async def job_states(
    database: Database, collection: Collection, jobs: Sequence[int]
) -> list[JobState]:
    """Return the states of jobs; a job that is gone is missing."""
    rows = await database.fetch(
        "SELECT j.id, j.state, j.error, d.version FROM jobs j LEFT JOIN documents d"
        " ON d.collection_id = j.collection_id AND d.id = j.document_id AND d.job_id = j.id"
        " WHERE j.collection_id = $1 AND j.id = ANY($2)",
        collection.id,
        jobs,
    )
    return [JobState(**row) for row in rows]
