"""CSV and TSV: each row can be understood alone."""

from __future__ import annotations

import datetime as dt

import pytest

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import rows
from ragserve.ingest.read.rows import cell_text
from ragserve.ingest.read.table import read


def text(data: bytes, name: str = "a.csv") -> str:
    """Return the text of a table."""
    (section,) = read(data, name).sections
    return section.text


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"Name,Age\nAda,36\nBob,7\n", "a.csv", "Name: Ada; Age: 36\nName: Bob; Age: 7"),
        (b"Tea;Price\nA;2,50\nB;1,10\n", "a.csv", "Tea: A; Price: 2,50\nTea: B; Price: 1,10"),
        (b"Name\tAge\r\nAda\t36\r\n", "a.tsv", "Name: Ada; Age: 36"),
        (b"Name\nAda\nBob\n", "a.csv", "Name: Ada\nName: Bob"),
        (b'a,b\n"x ""q"" y","l1\nl2"\n', "a.csv", 'a: x "q" y; b: l1 l2'),
        (b"\n,,\na,b\n1,2,3\n4\n,\n", "a.csv", "a: 1; b: 2; 3\na: 4"),
        (b"a,b,c\n", "a.csv", "a; b; c"),
        ("Größe;Farbe\n5;grün\n".encode("cp1252"), "a.csv", "Größe: 5; Farbe: grün"),
    ],
    ids="comma semicolon tab column quotes ragged header cp1252".split(),
)  # fmt: skip
def test_rows_carry_their_headers(data: bytes, name: str, expected: str) -> None:
    """Delimiters are told, quotes obeyed, empty rows and cells left out."""
    assert text(data, name) == expected


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """More cells than a document has are refused, and so is a cell that is none."""
    monkeypatch.setattr(rows, "MAX_CELLS", 3)
    with pytest.raises(UnreadableDocument, match=r"^a\.csv: 4 cells, the limit is 3$"):
        read(b"a,b\n1,2\n", "a.csv")
    with pytest.raises(UnreadableDocument, match=r"^a\.csv: unreadable table: field larger than"):
        read(b"a,b\n1," + b"x" * 140_000, "a.csv")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (3.0, "3"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
        (dt.date(2025, 3, 1), "2025-03-01"),
        (dt.datetime(2025, 3, 1), "2025-03-01"),  # noqa: DTZ001 - cells have no zone
        (dt.datetime(2025, 3, 1, 9, 30), "2025-03-01 09:30:00"),  # noqa: DTZ001
        (" a\n\x00 b ", "a b"),
    ],
)
def test_cells(value: object, expected: str) -> None:
    """A cell reads as a person would write it."""
    assert cell_text(value) == expected
