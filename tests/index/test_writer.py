"""Writing: what is committed is there, what is broken is begun again, one writer at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragserve.index import FORMAT, CollectionIndex, CollectionWriter, IndexState
from tests.index.samples import add, found, write


def test_a_new_index_is_empty_and_readable(tmp_path: Path) -> None:
    """An index begun in a missing directory is at version 0 and finds nothing."""
    with CollectionWriter(tmp_path / "index" / "1", "en") as writer:
        assert writer.version == 0
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o700, "words of documents are in it"
    index = CollectionIndex(tmp_path / "index" / "1")
    assert index.state == IndexState(FORMAT, "en", 0)
    assert index.documents == 0
    assert found(index, "anything") == []


def test_a_writer_continues_where_the_last_one_committed(tmp_path: Path) -> None:
    """Reopening keeps the passages and the version; what was not committed is gone."""
    write(tmp_path, "kept")
    with CollectionWriter(tmp_path, "en") as writer:
        add(writer, 2, "forgotten")
    with CollectionWriter(tmp_path, "en") as writer:
        assert writer.version == 1
    index = CollectionIndex(tmp_path)
    assert (found(index, "kept"), found(index, "forgotten")) == ([1], [])


def test_removal_takes_all_passages_of_a_document(tmp_path: Path) -> None:
    """A removed document is not found by any of its passages; others are."""
    write(tmp_path, "alpha one", "alpha two")
    with CollectionWriter(tmp_path, "en") as writer:
        add(writer, 3, "alpha three")
        writer.remove([1, 3, 99])
        writer.commit(2)
    index = CollectionIndex(tmp_path)
    assert found(index, "alpha") == [2]
    assert index.documents == 1


def test_a_replaced_document_is_found_by_its_new_text(tmp_path: Path) -> None:
    """Removed and added in one step, a document has only its new passages."""
    write(tmp_path, "yesterday")
    with CollectionWriter(tmp_path, "en") as writer:
        writer.remove([1])
        add(writer, 1, "today")
        writer.commit(2)
    index = CollectionIndex(tmp_path)
    assert (found(index, "yesterday"), found(index, "today")) == ([], [1])
    assert index.state.version == 2


def test_another_language_begins_again(tmp_path: Path) -> None:
    """An index analysed for another language is of no use and made anew."""
    write(tmp_path, "running", language="en")
    with CollectionWriter(tmp_path, "de") as writer:
        assert writer.version == 0
    index = CollectionIndex(tmp_path)
    assert index.state == IndexState(FORMAT, "de", 0)
    assert found(index, "running") == []


def test_the_index_of_another_database_begins_again(tmp_path: Path) -> None:
    """A collection of the same number, born at another time, shares no passage with it."""
    with CollectionWriter(tmp_path, "en", 7) as writer:
        add(writer, 1, "foreign")
        writer.commit(1)
    with CollectionWriter(tmp_path, "en", 8) as writer:
        assert writer.version == 0
    index = CollectionIndex(tmp_path)
    assert index.state == IndexState(FORMAT, "en", 0, 8)
    assert found(index, "foreign") == []


def test_another_format_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of another release's format is refused by readers and replaced by a writer."""
    with monkeypatch.context() as other_release:
        other_release.setattr("ragserve.index.writer.FORMAT", FORMAT + 1)
        write(tmp_path, "text")
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}, this release reads {FORMAT}"):
        CollectionIndex(tmp_path)
    with CollectionWriter(tmp_path, "en") as writer:
        assert writer.version == 0
    assert CollectionIndex(tmp_path).state.format == FORMAT


@pytest.mark.parametrize("damage", ["", "{", "{}", "null", "\0" * 200])
def test_a_damaged_head_begins_again(tmp_path: Path, damage: str) -> None:
    """An index whose meta.json is damaged is refused by readers and replaced by a writer."""
    write(tmp_path, "text")
    (tmp_path / "meta.json").write_text(damage)
    with pytest.raises(ValueError, match=r"meta\.json|Data corrupted|unknown"):
        CollectionIndex(tmp_path)
    with CollectionWriter(tmp_path, "en") as writer:
        assert writer.version == 0
        add(writer, 1, "again")
        writer.commit(1)
    assert found(CollectionIndex(tmp_path), "again") == [1]


@pytest.mark.parametrize("suffix", ["store", "term", "idx", "fast", "fieldnorm"])
@pytest.mark.parametrize("cut", [0, 0.5, None])
def test_a_damaged_segment_begins_again(tmp_path: Path, suffix: str, cut: float | None) -> None:
    """An index with a file that is empty, cut short or missing is replaced by a writer."""
    write(tmp_path, "text")
    for file in tmp_path.glob(f"*.{suffix}"):
        content = file.read_bytes()
        if cut is None:
            file.unlink()
        else:
            file.write_bytes(content[: int(len(content) * cut)])
    with CollectionWriter(tmp_path, "en") as writer:
        assert writer.version == 0


def test_a_directory_of_something_else_begins_again(tmp_path: Path) -> None:
    """Files that are no index do not stand in the way."""
    (tmp_path / "notes.txt").write_text("not an index")
    (tmp_path / "sub").mkdir()
    with CollectionWriter(tmp_path, "en") as writer:
        assert writer.version == 0
    assert CollectionIndex(tmp_path).documents == 0


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """While one writer is open another one is an error, and the first goes on."""
    with CollectionWriter(tmp_path, "en") as writer:
        with pytest.raises(ValueError, match="lock"):
            CollectionWriter(tmp_path, "en")
        add(writer, 1, "text")
        writer.commit(1)
    assert found(CollectionIndex(tmp_path), "text") == [1]
    with CollectionWriter(tmp_path, "en") as writer:
        assert writer.version == 1


def test_a_second_writer_never_deletes_under_the_first(tmp_path: Path) -> None:
    """A second writer that would begin the index again is refused as well."""
    with CollectionWriter(tmp_path, "en") as writer:
        add(writer, 1, "text")
        writer.commit(1)
        with pytest.raises(ValueError, match="lock"):
            CollectionWriter(tmp_path, "de")
        add(writer, 2, "more text")
        writer.commit(2)
    assert CollectionIndex(tmp_path).documents == 2
