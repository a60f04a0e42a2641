"""A filter means the same to PostgreSQL, to the BM25 index and to a reader of its description."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from ragserve.index import CollectionIndex, CollectionWriter
from ragserve.retrieve.filter import parse_filter
from ragserve.store.pool import Database
from tests.index.samples import add
from tests.retrieve.reference import matches, worlds

Object = dict[str, Any]


class Shelf:
    """An index whose passages are replaced for each try."""

    def __init__(self, directory: Path) -> None:
        self._writer = CollectionWriter(directory, "none")
        self._index = CollectionIndex(directory)
        self._count = 0

    def hold(self, documents: list[str]) -> None:
        """Hold one passage for each metadata object, numbered from 0, and nothing else."""
        self._writer.remove(range(self._count))
        self._count = len(documents)
        for number, metadata in enumerate(documents):
            add(self._writer, number, "word", metadata=metadata.encode())
        self._writer.commit(self._writer.version + 1)
        self._index.refresh(0.0, every_s=0.0)

    def matching(self, source: Object) -> set[int]:
        """Return the numbers of the passages that pass the filter."""
        parsed = parse_filter(source)
        assert parsed is not None
        required = parsed.required_terms(self._index)
        return {number for number, _ in self._index.candidates(["word"], 100, required)}

    def close(self) -> None:
        """Give up the lock."""
        self._writer.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """An empty index."""
    opened = Shelf(tmp_path / "index")
    yield opened
    opened.close()


async def _stored(database: Database, documents: list[Object]) -> list[str]:
    """Return metadata as PostgreSQL gives it to the index."""
    given = [msgspec.json.encode(document).decode() for document in documents]
    sql = "SELECT d::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS t(d, n) ORDER BY n"
    return [row[0] for row in await database.fetch(sql, given)]


async def _matching(database: Database, documents: list[str], source: Object) -> set[int]:
    parsed = parse_filter(source)
    assert parsed is not None
    sql = (
        "SELECT n - 1 FROM unnest($1::text[]) WITH ORDINALITY AS t(d, n)"
        " WHERE d::jsonb @@ $2::jsonpath"
    )
    return {row[0] for row in await database.fetch(sql, documents, parsed.jsonpath())}


async def _agree(
    database: Database, shelf: Shelf, documents: list[Object], filters: list[Object]
) -> None:
    stored = await _stored(database, documents)
    shelf.hold(stored)
    for source in filters:
        expected = {n for n, document in enumerate(documents) if matches(document, source)}
        assert await _matching(database, stored, source) == expected, ("PostgreSQL", source)
        assert shelf.matching(source) == expected, ("index", source)


@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(world=worlds())
async def test_random_filters_mean_one_thing(
    database: Database, shelf: Shelf, world: tuple[list[Object], list[Object]]
) -> None:
    """For any metadata and filter both stores select what the description says."""
    documents, filters = world
    await _agree(database, shelf, documents, filters)


async def test_kinds_never_match_each_other(database: Database, shelf: Shelf) -> None:
    """1, true, "1" and "true" are four values; null, objects and nothing are none."""
    values = [1, True, "1", "true", None, {"a": 1}, {}, [], [None], [[]]]
    documents: list[Object] = [{"a": value} for value in values] + [{}, {"b": 1}]
    filters: list[Object] = [{"a": value} for value in (1, True, "1", "true", 0, False, "")]
    filters += [{"a": {"gte": 0}}, {"a": {"gte": ""}}, {"a": {"lt": "z", "gt": 0}}]
    await _agree(database, shelf, documents, filters)
    assert shelf.matching({"a": 1}) == {0}
    assert shelf.matching({"a": True}) == {1}


async def test_one_value_of_a_list_has_to_satisfy_all(database: Database, shelf: Shelf) -> None:
    """A list that has a value for each bound but none for both does not match."""
    documents: list[Object] = [{"a": [1, 9]}, {"a": [1, 5, 9]}, {"a": 5}]
    filters: list[Object] = [{"a": {"gt": 2, "lt": 8}}, {"a": {"in": [1, 9], "gt": 2}}]
    await _agree(database, shelf, documents, filters)
    assert shelf.matching(filters[0]) == {1, 2}
    assert shelf.matching(filters[1]) == {0, 1}


async def test_lists_within_lists(database: Database, shelf: Shelf) -> None:
    """Both stores look equally deep into nested lists: the description promises one level."""
    documents: list[Object] = [{"a": [1]}, {"a": [[1]]}, {"a": [[[1]]]}, {"a": [2, [1]]}]
    await _agree(database, shelf, documents, [{"a": 1}, {"a": {"gt": 0, "lt": 2}}])


async def test_integers_beyond_doubles(database: Database, shelf: Shelf) -> None:
    """Ids of more than 53 bits, such as snowflakes, are not confused with their neighbours."""
    documents: list[Object] = [{"a": 2**53}, {"a": 2**53 + 1}, {"a": 2**63}, {"a": 2**63 + 1}]
    filters = [{"a": document["a"]} for document in documents]
    await _agree(database, shelf, documents, [*filters, {"a": {"gt": 2**53, "lte": 2**63}}])


async def test_control_characters_in_names(database: Database, shelf: Shelf) -> None:
    """A name or value with control characters is never taken for another one."""
    documents: list[Object] = [{"a\x1fs": True}, {"a": "\x1fb1"}, {"a\x1fsb": 1}]
    filters: list[Object] = [{"a": "\x1fb1"}, {"a\x1fs": True}, {"a": {"gt": ""}}]
    await _agree(database, shelf, documents, filters)


async def test_long_strings(database: Database, shelf: Shelf) -> None:
    """Strings with a long common beginning are told apart by equality."""
    documents: list[Object] = [{"a": "x" * 300 + tail} for tail in ("", "a", "b")]
    await _agree(database, shelf, documents, list(documents))
