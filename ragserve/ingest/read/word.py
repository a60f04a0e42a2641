"""Word documents by python-docx: headings, paragraphs, lists and tables in their order."""

from __future__ import annotations

import io
import re

import docx
from docx.document import Document
from docx.opc.exceptions import PackageNotFoundError
from docx.table import Table
from docx.text.paragraph import Paragraph

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.package import PACKAGE_ERRORS
from ragserve.ingest.read.text import clean, heading_path

_HEADING = re.compile(r"(?:heading|überschrift|titre|título|titolo) (\d)", re.I)
_LIST = re.compile(r"list|aufzählung|liste", re.I)


def read(data: bytes, name: str) -> ReadDocument:
    """Cut at headings; table cells are joined with bars."""
    try:
        document = docx.Document(io.BytesIO(data))
        sections = _sections(document)
        title = document.core_properties.title
    except (PackageNotFoundError, *PACKAGE_ERRORS) as error:
        raise UnreadableDocument(f"{name}: the Word document is damaged: {error}") from error
    return ReadDocument(tuple(sections), " ".join(clean(title or "").split()) or None)


def _sections(document: Document) -> list[Section]:
    sections: list[Section] = []
    lines: list[str] = []
    headings: dict[int, str] = {}
    path: str | None = None

    def flush() -> None:
        text = clean("\n".join(lines)).strip()
        if text:
            sections.append(Section(text, heading=path))
        lines.clear()

    for block in document.iter_inner_content():
        if isinstance(block, Table):
            lines.extend(_rows(block))
            continue
        style = (block.style.name if block.style is not None else None) or ""
        if (level := _level(block, style)) is not None and block.text.strip():
            flush()
            path = heading_path(headings, level, clean(block.text))
        elif block.text.strip():
            lines.append(("- " if _LIST.match(style) else "") + block.text)
    flush()
    return sections


def _level(paragraph: Paragraph, style: str) -> int | None:
    if match := _HEADING.match(style):
        return int(match[1])
    if style.lower() == "title":
        return 0
    return None


def _rows(table: Table) -> list[str]:
    rows = []
    for row in table.rows:
        cells = [" ".join(cell.text.split()) for cell in row.cells]
        # A merged cell is listed once for every column it spans.
        distinct = [
            cell for number, cell in enumerate(cells) if number == 0 or cell != cells[number - 1]
        ]
        rows.append(" | ".join(distinct))
    return rows
