"""The HNSW index of a collection: built once it pays, by the ingest process.

Below some thousand passages a scan is exact and as fast as the index; while a first bulk load
runs, building the index once afterwards costs a fraction of growing it row by row.
"""

from __future__ import annotations

import structlog

from ragserve.store.collections import Collection
from ragserve.store.pool import Database

log = structlog.get_logger(__name__)

INDEX_CHUNKS = 2_000
"""With fewer passages a scan stays below a few milliseconds."""
INDEX_CHUNKS_BUSY = 50_000
"""With more, questions cannot wait until the queue is empty."""
BUILD_MEMORY = "512MB"
BUILD_TIMEOUT_S = 3600.0


def index_due(chunks: int, pending: int) -> bool:
    """Decide whether a collection without an index should get one now."""
    return chunks >= (INDEX_CHUNKS_BUSY if pending else INDEX_CHUNKS)


async def ensure_vector_index(database: Database, collection: Collection, pending: int) -> bool:
    """Build the collection's HNSW index if it is due; return whether it was built now."""
    name = f"{collection.table}_hnsw"
    valid = await database.fetchval(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)", name
    )
    if valid:
        return False
    chunks = await database.fetchval(f"SELECT count(*) FROM {collection.table}")
    if not index_due(chunks, pending):
        return False
    connection = await database.connect()
    try:
        if valid is False:  # an interrupted build
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        await connection.execute(
            f"SET maintenance_work_mem = '{BUILD_MEMORY}'; SET statement_timeout = 0"
        )
        # CONCURRENTLY: deletions go on meanwhile, and a crash leaves an invalid index, not a lock.
        await connection.execute(
            f"CREATE INDEX CONCURRENTLY {name} ON {collection.table} USING hnsw"
            f" ((embedding::halfvec({collection.dimensions})) halfvec_ip_ops)",
            timeout=BUILD_TIMEOUT_S,
        )
    finally:
        await connection.close(timeout=5)
    log.info("vector_index_built", collection=collection.name, chunks=chunks)
    return True
