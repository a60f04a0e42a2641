"""Collections: created on first use, found by tenant and name."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
import msgspec

from ragserve.config import Language
from ragserve.errors import Conflict, InvalidRequest, NotFound
from ragserve.store.pool import Database

NAME_CHARACTERS = 128
CHANGED = "ragserve_changes"
"""The NOTIFY channel that carries ``<collection id> <version>`` at every commit."""
NEW_JOBS = "ragserve_jobs"
"""The NOTIFY channel that wakes ingest processes."""


class Collection(msgspec.Struct, frozen=True):
    """A named set of documents with one embedder, one language and a version.

    ``born``, microseconds since 1970, tells it from one of the same id in another database.
    """

    id: int
    tenant: str
    name: str
    language: Language
    embedder: str
    dimensions: int
    version: int
    born: int = 0

    @property
    def table(self) -> str:
        """The partition of ``chunks`` that holds this collection's passages."""
        return f"chunks_{self.id}"


class CollectionCounts(msgspec.Struct, frozen=True):
    """What a collection holds: searchable documents and chunks, unfinished and failed jobs."""

    documents: int
    chunks: int
    pending: int
    failed: int


_COLUMNS = (
    "id, tenant, name, language, embedder, dimensions, version,"
    " (extract(epoch FROM created_at) * 1000000)::bigint AS born"
)


async def find_collection(database: Database, tenant: str, name: str) -> Collection | None:
    """Return the collection, or None if there is none of that name."""
    if "\0" in name:  # PostgreSQL cannot even be asked
        return None
    row = await database.fetchrow(
        f"SELECT {_COLUMNS} FROM collections WHERE tenant = $1 AND name = $2", tenant, name
    )
    return Collection(**row) if row else None


async def find_collection_by_id(database: Database, collection_id: int) -> Collection | None:
    """Return the collection, or None if it is gone."""
    row = await database.fetchrow(
        f"SELECT {_COLUMNS} FROM collections WHERE id = $1", collection_id
    )
    return Collection(**row) if row else None


async def list_collections(database: Database, tenant: str | None = None) -> list[Collection]:
    """Return a tenant's collections by name, or everybody's for the index."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM collections WHERE $1::text IS NULL OR tenant = $1 ORDER BY name",
        tenant,
    )
    return [Collection(**row) for row in rows]


async def ensure_collection(
    database: Database,
    tenant: str,
    name: str,
    *,
    embedder: str,
    dimensions: int,
    language: Language,
    on_create: Callable[[Collection], None] = lambda _: None,
) -> Collection:
    """Return the collection, creating it if need be; raise ``Conflict`` on another embedder.

    ``on_create`` is told of a new one, once of all who wanted it at the same time.
    """
    check_name(name)
    collection = await find_collection(database, tenant, name)
    if collection is None:
        async with database.connection() as connection, connection.transaction():
            row = await connection.fetchrow(
                "INSERT INTO collections (tenant, name, language, embedder, dimensions)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, name) DO NOTHING"
                f" RETURNING {_COLUMNS}",
                tenant,
                name,
                language,
                embedder,
                dimensions,
            )
            if row is not None:
                collection = Collection(**row)
                await _create_partition(connection, collection)
        if collection is None:
            collection = await get_collection(database, tenant, name)
        else:
            on_create(collection)
    check_embedder(collection, embedder, dimensions)
    return collection


async def get_collection(database: Database, tenant: str, name: str) -> Collection:
    """Return the collection or raise ``NotFound``."""
    collection = await find_collection(database, tenant, name)
    if collection is None:
        raise NotFound(f"collection {name!r} does not exist", param="collection")
    return collection


async def count_collection(
    database: Database, collection: Collection, indexed: int | None = None
) -> CollectionCounts:
    """Count what a collection holds, now.

    Documents that are stored but newer than version ``indexed`` still count as pending.
    """
    row = await database.fetchrow(
        "WITH stored AS (SELECT count(*) FILTER (WHERE version <= $2) AS documents,"
        "  coalesce(sum(chunks) FILTER (WHERE version <= $2), 0) AS chunks,"
        "  count(*) FILTER (WHERE version > $2) AS unindexed"
        "  FROM documents WHERE collection_id = $1)"
        " SELECT documents, chunks, unindexed + (SELECT count(*) FROM jobs"
        "   WHERE collection_id = $1 AND state IN ('queued', 'running')) AS pending,"
        " (SELECT count(*) FROM jobs WHERE collection_id = $1 AND state = 'failed') AS failed"
        " FROM stored",
        collection.id,
        2**62 if indexed is None else indexed,
    )
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return CollectionCounts(**row)


async def delete_collection(database: Database, collection: Collection) -> None:
    """Delete a collection with everything in it, in one transaction."""
    async with database.connection() as connection, connection.transaction():
        await connection.execute("DELETE FROM collections WHERE id = $1", collection.id)
        await connection.execute(f"DROP TABLE IF EXISTS {collection.table}")
        await connection.execute("SELECT pg_notify($1, $2)", CHANGED, f"{collection.id} -1")


async def raise_versions(database: Database, tenant: str, name: str | None) -> list[Collection]:
    """Raise the version of a tenant's collection, or of all, without a change; return them.

    Answers computed from what was known before are then those of an old version. Raises
    ``NotFound`` if there is no collection of that name.
    """
    rows = await database.fetch(
        "WITH raised AS (UPDATE collections SET version = version + 1"
        f"  WHERE tenant = $1 AND ($2::text IS NULL OR name = $2) RETURNING {_COLUMNS}),"
        " notified AS (SELECT pg_notify($3, id || ' ' || version) FROM raised)"
        " SELECT raised.* FROM raised, (SELECT count(*) FROM notified) once ORDER BY name",
        tenant,
        name,
        CHANGED,
    )
    if name is not None and not rows:
        raise NotFound(f"collection {name!r} does not exist", param="collection")
    return [Collection(**row) for row in rows]


async def _create_partition(connection: asyncpg.Connection, collection: Collection) -> None:
    table = collection.table
    await connection.execute(
        f"CREATE TABLE {table} PARTITION OF chunks FOR VALUES IN ({collection.id});"
        f"ALTER TABLE {table} ADD PRIMARY KEY (id);"
        f"CREATE INDEX ON {table} (document_key, position)"
    )


def check_name(name: str) -> None:
    """Raise ``InvalidRequest`` unless ``name`` can name a collection."""
    if not name or len(name) > NAME_CHARACTERS:
        raise InvalidRequest(
            f"collection: a name has 1 to {NAME_CHARACTERS} characters, this has {len(name)}",
            param="collection",
        )
    if not name.isprintable() or name != name.strip() or "/" in name:
        raise InvalidRequest(
            f"collection: {name!r} must be printable, without '/' and without outer spaces",
            param="collection",
        )


def check_embedder(collection: Collection, embedder: str, dimensions: int) -> None:
    """Raise ``Conflict`` if the collection was made with another model."""
    if (collection.embedder, collection.dimensions) != (embedder, dimensions):
        raise Conflict(
            f"collection {collection.name!r} holds vectors of {collection.embedder} "
            f"({collection.dimensions} dimensions); this server embeds with {embedder} "
            f"({dimensions}): use another collection, or configure the old model",
            param="collection",
        )
