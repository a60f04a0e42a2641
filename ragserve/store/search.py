"""Nearest passages: pgvector, joined with what a result shows, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ragserve.store.collections import Collection
from ragserve.store.pool import Database


class Passage(msgspec.Struct, frozen=True):
    """A stored passage; ``similarity`` is its cosine to the question."""

    id: int
    document_id: str
    title: str
    url: str | None
    metadata: str
    position: int
    page: int | None
    heading: str | None
    text: str
    similarity: float
    lexical: float
    score: float


# The neighbours come from the HNSW index, the lexical candidates from the caller; every candidate
# is rescored exactly from its row, and only the best few fetch their texts. <#> is the negative
# inner product, which for unit vectors is the negative cosine.
_SEARCH = """
WITH nearest AS MATERIALIZED (
    SELECT c.id FROM {table} c {join}
    ORDER BY c.embedding::halfvec({n}) <#> $1::halfvec({n}) LIMIT $2
), lexical AS (
    SELECT * FROM unnest($3::bigint[], $4::float8[]) AS l(id, score)
), scored AS (
    SELECT c.id, c.document_key, -(c.embedding::halfvec({n}) <#> $1::halfvec({n})) AS similarity,
           coalesce(l.score, 0) AS lexical
    FROM (SELECT id FROM nearest UNION SELECT id FROM lexical) candidate
    JOIN {table} c USING (id) LEFT JOIN lexical l USING (id)
), best AS (
    SELECT *, $5::float8 * similarity + (1 - $5::float8) * lexical AS score
    FROM scored ORDER BY score DESC, id LIMIT $6
)
SELECT best.id, d.id AS document_id, d.title, d.url, d.metadata::text AS metadata, c.position,
       c.page, c.heading, c.text, best.similarity, best.lexical, best.score
FROM best JOIN {table} c USING (id) JOIN documents d ON d.key = best.document_key
ORDER BY best.score DESC, best.id
"""
_FILTER = "JOIN documents d ON d.key = c.document_key AND d.metadata @@ $7::jsonpath"


async def search_passages(
    database: Database,
    collection: Collection,
    vector: npt.NDArray[np.float32],
    *,
    candidates: int,
    top_k: int,
    lexical: Sequence[tuple[int, float]] = (),
    dense_weight: float = 1.0,
    filter_path: str | None = None,
) -> list[Passage]:
    """Return the ``top_k`` best passages for a unit question ``vector``.

    ``lexical`` holds chunk ids and lexical scores from 0 to 1, already filtered. A passage's
    score is ``dense_weight`` times its similarity plus the rest times its lexical score.
    ``filter_path`` is a jsonpath predicate over the metadata.
    """
    sql = _SEARCH.format(
        table=collection.table,
        n=collection.dimensions,
        join=_FILTER if filter_path is not None else "",
    )
    args: list[object] = [
        vector,
        candidates,
        [chunk for chunk, _ in lexical],
        [score for _, score in lexical],
        dense_weight,
        top_k,
    ]
    if filter_path is not None:
        args.append(filter_path)
    return [Passage(**row) for row in await database.fetch(sql, *args)]
