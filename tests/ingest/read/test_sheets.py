"""Spreadsheets: sheets are pages, rows carry their headers."""

from __future__ import annotations

import io
import zipfile

import pytest

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section, read_document, rows
from ragserve.ingest.read.sheets import read

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"


def workbook(*sheets: str) -> bytes:
    """Return an .xlsx of sheets named S1, S2, ... with the given rows in XML."""
    numbers = range(1, len(sheets) + 1)
    entries = "".join(f'<sheet name="S{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
    relations = "".join(
        f'<Relationship Id="r{n}" Type="{OFFICE}/worksheet" Target="worksheets/s{n}.xml"/>'
        for n in numbers
    )
    files = {
        "[Content_Types].xml": f'<Types xmlns="{PACKAGE}/content-types"/>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r"'
        f' Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{entries}</sheets>'
        "</workbook>",
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE}/relationships">{relations}'
        "</Relationships>",
    }
    for n, sheet in zip(numbers, sheets, strict=True):
        content = f'<worksheet xmlns="{MAIN}"><sheetData>{sheet}</sheetData></worksheet>'
        files[f"xl/worksheets/s{n}.xml"] = content
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, '<?xml version="1.0"?>' + text)
    return out.getvalue()


def row(number: int, *cells: str | float) -> str:
    """Return a row in XML."""
    columns = [
        f'<c r="{chr(65 + n)}{number}" t="inlineStr"><is><t>{cell}</t></is></c>'
        if isinstance(cell, str)
        else f'<c r="{chr(65 + n)}{number}"><v>{cell}</v></c>'
        for n, cell in enumerate(cells)
    ]
    return f'<row r="{number}">{"".join(columns)}</row>'


def test_sheets_are_pages() -> None:
    """Each sheet with text is a section under its name; an empty one keeps its number."""
    book = workbook(row(1, "Name", "Age") + row(2, "Ada", 36.0), "", row(3, "alone", 2.5))
    document = read_document(book, "a.xlsx")
    assert document.title is None
    assert document.sections == (
        Section("Name: Ada; Age: 36", page=1, heading="S1"),
        Section("alone; 2.5", page=3, heading="S3"),
    )


def test_cells_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sheet with more cells than a document has is refused."""
    monkeypatch.setattr(rows, "MAX_CELLS", 5)
    book = workbook(row(1, "a", "b") + row(2, "c", "d") + row(3, "e", "f"))
    with pytest.raises(UnreadableDocument, match=r"^a\.xlsx: 6 cells, the limit is 5$"):
        read(book, "a.xlsx")


def test_sparse_sheets_are_refused_before_they_grow() -> None:
    """Two cells far apart count as all the cells between them."""
    far = '<row r="1048576"><c r="B1048576"><v>2</v></c></row>'
    with pytest.raises(UnreadableDocument, match=r"^a\.xlsx: 2097152 cells, the limit is 2000000$"):
        read(workbook(row(1, "a") + far), "a.xlsx")


def test_a_damaged_workbook_is_named() -> None:
    """A workbook without its sheet is refused."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook>")
    with pytest.raises(UnreadableDocument, match=r"^a\.xlsx: the spreadsheet is damaged: "):
        read_document(out.getvalue(), "a.xlsx")
