"""The open readers: opened on first use, bounded in number, gone and back with their files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec import structs

from ragserve.errors import Unavailable
from ragserve.index import CollectionWriter, index_directory
from ragserve.retrieve import Indexes
from ragserve.store.collections import Collection
from tests.index.samples import write


def _collection(number: int) -> Collection:
    return Collection(
        id=number,
        tenant="default",
        name=f"name-{number}",
        language="en",
        embedder="hashing-384",
        dimensions=384,
        version=1,
    )


def test_a_collection_without_an_index_is_unavailable(tmp_path: Path) -> None:
    """Before the first commit the error names the collection and when to ask again."""
    indexes = Indexes(tmp_path)
    with pytest.raises(Unavailable, match="collection 'name-7' has no search index yet") as missing:
        indexes.get(_collection(7), 100.0)
    assert missing.value.retry_after_s == 1.0
    assert indexes.version(_collection(7), 100.0) == -1
    write(index_directory(tmp_path, 7), "text")
    assert indexes.version(_collection(7), 100.0) == 1


def test_the_index_of_another_database_is_none(tmp_path: Path) -> None:
    """Until the ingest process has begun it again nothing is found in it."""
    write(index_directory(tmp_path, 1), "text")
    other = structs.replace(_collection(1), born=7)
    indexes = Indexes(tmp_path)
    assert indexes.version(_collection(1), 100.0) == 1
    assert indexes.version(other, 100.0) == -1
    with pytest.raises(Unavailable, match="belongs to another database"):
        indexes.get(other, 200.0)


def test_a_reader_is_opened_once(tmp_path: Path) -> None:
    """Questions to one collection share its reader."""
    write(index_directory(tmp_path, 1), "text")
    indexes = Indexes(tmp_path)
    assert indexes.get(_collection(1), 100.0) is indexes.get(_collection(1), 200.0)
    assert repr(indexes) == "<Indexes 1 open>"


def test_a_version_is_the_newest(tmp_path: Path) -> None:
    """Who asks for the version is told of a commit at once, not at the next look."""
    indexes = Indexes(tmp_path)
    with CollectionWriter(index_directory(tmp_path, 1), "en") as writer:
        assert indexes.version(_collection(1), 100.0) == 0
        writer.commit(5)
        assert indexes.version(_collection(1), 100.001) == 5


def test_a_deleted_index_is_opened_again_when_it_is_back(tmp_path: Path) -> None:
    """A reader whose files are gone is an error until they are there again, not for ever."""
    directory = index_directory(tmp_path, 1)
    write(directory, "old")
    indexes = Indexes(tmp_path)
    assert indexes.get(_collection(1), 100.0).documents == 1
    shutil.rmtree(directory)
    with pytest.raises(Unavailable):
        indexes.get(_collection(1), 200.0)
    write(directory, "new", "newer")
    assert indexes.get(_collection(1), 300.0).documents == 2


def test_open_readers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader unused for longest is closed when there are too many."""
    monkeypatch.setattr("ragserve.retrieve.indexes.OPEN_INDEXES", 2)
    for number in (1, 2, 3):
        write(index_directory(tmp_path, number), "text")
    indexes = Indexes(tmp_path)
    first, second = indexes.get(_collection(1), 1.0), indexes.get(_collection(2), 2.0)
    assert indexes.get(_collection(1), 3.0) is first
    indexes.get(_collection(3), 4.0)
    assert len(indexes) == 2
    assert indexes.get(_collection(1), 5.0) is first
    assert indexes.get(_collection(2), 6.0) is not second
