"""What changed in a collection since a version: how a host's search index catches up.

Versions are given under the lock of the collection's row, so they become visible in order and
without gaps: whoever has seen everything up to N misses nothing by asking for what came after N.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ragserve.store.collections import Collection
from ragserve.store.pool import Database


class ChangedChunk(msgspec.Struct, frozen=True):
    """A passage with all that a search result shows of it."""

    id: int
    document_key: int
    document_id: str
    version: int
    title: str
    url: str | None
    metadata: str
    position: int
    page: int | None
    heading: str | None
    text: str


class Changes(msgspec.Struct, frozen=True):
    """A step from one version to a later one: forget ``removed``, then add ``chunks``."""

    version: int
    removed: Sequence[int]
    chunks: Sequence[ChangedChunk]


async def read_changes(
    database: Database, collection: Collection, since: int, *, limit: int
) -> Changes | None:
    """Return the next step after version ``since``: up to ``limit`` changes, None if none.

    ``removed`` holds the keys of deleted and of replaced documents.
    """
    rows = await database.fetch(
        "SELECT version, key, stored FROM (SELECT version, key, true AS stored FROM documents"
        "  WHERE collection_id = $1 AND version > $2"
        " UNION ALL SELECT version, document_key, false FROM deletions"
        "  WHERE collection_id = $1 AND version > $2) changes ORDER BY version LIMIT $3",
        collection.id,
        since,
        limit,
    )
    if not rows:
        return None
    last = rows[-1]["version"]
    chunks = await database.fetch(
        "SELECT c.id, c.document_key, d.id AS document_id, d.version, d.title, d.url,"
        " d.metadata::text AS metadata, c.position, c.page, c.heading, c.text"
        f" FROM documents d JOIN {collection.table} c ON c.document_key = d.key"
        " WHERE d.collection_id = $1 AND d.version > $2 AND d.version <= $3",
        collection.id,
        since,
        last,
    )
    return Changes(last, [row["key"] for row in rows], [ChangedChunk(**row) for row in chunks])


async def forgotten_version(database: Database, collection: Collection) -> int:
    """Return the version up to which deletions are forgotten."""
    version: int = await database.fetchval(
        "SELECT forgotten FROM collections WHERE id = $1", collection.id
    )
    return version


async def forget_deletions(database: Database, keep_days: float) -> None:
    """Forget old deletions, remembering in each collection how far."""
    await database.execute(
        "WITH gone AS (DELETE FROM deletions"
        "  WHERE deleted_at < now() - make_interval(secs => $1)"
        "  RETURNING collection_id, version),"
        " newest AS (SELECT collection_id, max(version) AS version FROM gone GROUP BY 1)"
        " UPDATE collections SET forgotten = newest.version FROM newest"
        " WHERE collections.id = newest.collection_id",
        keep_days * 86400,
    )
