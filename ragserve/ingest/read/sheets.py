"""Spreadsheets by calamine: a section for each sheet."""

from __future__ import annotations

import io
from typing import Any

import python_calamine

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.rows import check_cells, row_lines


def read(data: bytes, name: str) -> ReadDocument:
    """Return sheets as pages, their names as headings."""
    try:
        book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheets = [(sheet, _rows(book.get_sheet_by_name(sheet), name)) for sheet in book.sheet_names]
    except python_calamine.PasswordError as error:
        raise UnreadableDocument(f"{name}: the spreadsheet is encrypted") from error
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        raise UnreadableDocument(f"{name}: the spreadsheet is damaged: {error}") from error
    sections = []
    for number, (sheet, rows) in enumerate(sheets, start=1):
        text = "\n".join(row_lines(rows, name))
        if text:
            sections.append(Section(text, page=number, heading=sheet))
    return ReadDocument(tuple(sections))


def _rows(sheet: Any, name: str) -> list[list[object]]:
    # Two cells in opposite corners make a sheet of all cells between them.
    check_cells(sheet.height * sheet.width, name)
    rows: list[list[object]] = sheet.to_python(skip_empty_area=True)
    return rows
