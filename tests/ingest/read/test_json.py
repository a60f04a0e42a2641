"""JSON: one line a value, one section a record."""

from __future__ import annotations

import pytest

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section, read_document
from ragserve.ingest.read.json import read


def refusal(data: bytes, name: str) -> str:
    """Return the message of the error."""
    with pytest.raises(UnreadableDocument) as refused:
        read(data, name)
    return refused.value.message


def test_paths_and_values() -> None:
    """Each value has its path; lists of scalars are one line; null and "" are left out."""
    data = b"""{"a": {"b": [1, 2.5, true], "c": null, "d": ""}, "e": [{"f": "x"}, {"f": false}]}"""
    assert read(data, "a.json").sections == (
        Section("a.b: 1, 2.5, true\ne[1].f: x\ne[2].f: false"),
    )


def test_a_list_of_objects_is_a_table_of_records() -> None:
    """Every object is a section under what it calls itself, in one line."""
    data = b"""[{"question": " Who\\nis it? ", "answer": "Me"}, {"title": "", "name": "N"}]"""
    assert read(data, "a.json").sections == (
        Section("question:  Who\nis it? \nanswer: Me", heading="Who is it?"),
        Section("name: N", heading="N"),
    )


def test_lines() -> None:
    """JSON lines are records; empty lines and U+2028 in a string divide nothing."""
    data = '{"title": "A", "n": 1}\r\n\r\n{"n": "x\u2028y"}\n'.encode()
    assert read(data, "a.jsonl").sections == (
        Section("title: A\nn: 1", heading="A"),
        Section("n: x\ny"),
    )


def test_broken_json_is_named() -> None:
    """The message says which line is broken, or that the file is."""
    assert refusal(b'{"a": 1', "a.json").startswith("a.json: no valid JSON: ")
    broken = refusal(b'{"a": 1}\n{"a":\n{"a": 3}\n', "a.jsonl")
    assert broken.startswith("a.jsonl: line 2 is no valid JSON: ")


@pytest.mark.parametrize("levels", [102, 100_000])
def test_depth_is_limited(levels: int) -> None:
    """Nesting deeper than the limit is refused, however deep it is."""
    data = b"[" * levels + b"1" + b"]" * levels
    assert refusal(data, "a.json") == "a.json: nested deeper than 100 levels"


def test_numbers_without_end_are_refused() -> None:
    """A number of thousands of digits is no valid JSON to us."""
    assert refusal(b'{"a": ' + b"9" * 6000 + b"}", "a.json").startswith("a.json: no valid JSON: ")


def test_nothing_but_nulls_is_no_text() -> None:
    """A file without a value is refused."""
    with pytest.raises(UnreadableDocument, match=r"^a\.json: no text in it$"):
        read_document(b'[{"a": null}, {}]', "a.json")
