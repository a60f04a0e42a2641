"""Nearest passages: pgvector, joined with what a result shows, in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ragserve.store.collections import Collection
from ragserve.store.replica import Searches


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


# The neighbours come from the HNSW index, the lexical candidates from the caller. Every similarity
# is computed exactly from the row, and only the best few fetch their texts. <#> is the negative
# inner product, which for unit vectors is the negative cosine.
_NEAREST = """
    SELECT c.id, c.document_key, -(c.embedding::halfvec({n}) <#> $1::halfvec({n})) AS similarity
    FROM {table} c {join} ORDER BY c.embedding::halfvec({n}) <#> $1::halfvec({n}) LIMIT $2
"""
_DENSE = f"""
WITH best AS MATERIALIZED (SELECT *, 0::float8 AS lexical FROM ({_NEAREST}) nearest)
"""
_HYBRID = f"""
WITH nearest AS MATERIALIZED ({_NEAREST}), lexical AS MATERIALIZED (
    SELECT * FROM unnest($3::bigint[], $4::float8[]) AS l(id, score)
), candidate AS (
    SELECT nearest.*, coalesce(l.score, 0) AS lexical
    FROM nearest LEFT JOIN lexical l USING (id)
    UNION ALL
    SELECT c.id, c.document_key, -(c.embedding::halfvec({{n}}) <#> $1::halfvec({{n}})), l.score
    FROM lexical l JOIN {{table}} c USING (id) {{join}}
    WHERE l.id NOT IN (SELECT id FROM nearest)
), best AS (
    SELECT * FROM candidate
    ORDER BY $5::float8 * similarity + (1 - $5::float8) * lexical DESC, id LIMIT $6
)
"""
_SHOWN = """
SELECT best.id, d.id AS document_id, d.title, d.url, d.metadata::text AS metadata, c.position,
       c.page, c.heading, c.text, best.similarity, best.lexical
FROM best JOIN {table} c USING (id) JOIN documents d ON d.key = best.document_key
"""
_FILTER = "JOIN documents d ON d.key = c.document_key AND d.metadata @@ ${filter}::jsonpath"


async def nearest_passages(
    searches: Searches,
    collection: Collection,
    vector: npt.NDArray[np.float32],
    *,
    top_k: int,
    filter_path: str | None = None,
) -> list[Passage]:
    """Return the ``top_k`` passages nearest to a unit question ``vector``, nearest first.

    ``filter_path`` is a jsonpath predicate over the documents' metadata.
    """
    args: list[object] = [vector, top_k]
    rows = await searches.fetch(collection, _sql(_DENSE, collection, args, filter_path), *args)
    return _ranked([Passage(**row, score=row["similarity"]) for row in rows])


async def fused_passages(
    searches: Searches,
    collection: Collection,
    vector: npt.NDArray[np.float32],
    lexical: Sequence[tuple[int, float]],
    *,
    candidates: int,
    top_k: int,
    dense_weight: float,
    within_s: float,
    filter_path: str | None = None,
) -> list[Passage]:
    """Return the ``top_k`` best of the ``candidates`` nearest passages and the ``lexical`` ones.

    Raises ``Unavailable`` if that takes longer than ``within_s``: words alone can be searched, too.

    ``lexical`` holds chunk ids and lexical scores from 0 to 1, already filtered. A passage's
    score is ``dense_weight`` times its similarity plus the rest times its lexical score.
    """
    chunks = [chunk for chunk, _ in lexical]
    scores = [score for _, score in lexical]
    args: list[object] = [vector, candidates, chunks, scores, dense_weight, top_k]
    sql = _sql(_HYBRID, collection, args, filter_path)
    rows = await searches.fetch_soon(collection, within_s, sql, *args)
    return _ranked(
        [
            Passage(
                **row,
                score=dense_weight * row["similarity"] + (1 - dense_weight) * row["lexical"],
            )
            for row in rows
        ]
    )


def _sql(head: str, collection: Collection, args: list[object], filter_path: str | None) -> str:
    """Return the statement; a filter becomes its last argument."""
    join = ""
    if filter_path is not None:
        args.append(filter_path)
        join = _FILTER.format(filter=len(args))
    return (head + _SHOWN).format(table=collection.table, n=collection.dimensions, join=join)


def _ranked(passages: list[Passage]) -> list[Passage]:
    return sorted(passages, key=lambda passage: (-passage.score, passage.id))
