"""PowerPoint by python-pptx: a section for each slide, with its notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from pptx import Presentation
from pptx.exc import PythonPptxError

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.package import PACKAGE_ERRORS
from ragserve.ingest.read.text import clean


def read(data: bytes, name: str) -> ReadDocument:
    """Return slides as pages, their titles as headings."""
    try:
        presentation = Presentation(io.BytesIO(data))
        sections = [
            _section(slide, number) for number, slide in enumerate(presentation.slides, start=1)
        ]
        title = presentation.core_properties.title
    except (PythonPptxError, *PACKAGE_ERRORS) as error:
        raise UnreadableDocument(f"{name}: the presentation is damaged: {error}") from error
    title = " ".join(clean(title or "").split())
    named = title if title and title.lower() != "powerpoint presentation" else None
    return ReadDocument(tuple(section for section in sections if section.text), named)


def _section(slide: Any, number: int) -> Section:
    heading = slide.shapes.title
    title = " ".join(heading.text_frame.text.split()) if heading is not None else ""
    lines = [
        line
        for shape in slide.shapes
        if heading is None or shape.shape_id != heading.shape_id
        for line in _lines(shape)
    ]
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        lines.append(slide.notes_slide.notes_text_frame.text)
    text = clean("\n".join(lines)).strip()
    return Section(text or title, page=number, heading=clean(title) or None)


def _lines(shape: Any) -> Iterator[str]:
    if shape.has_text_frame:
        yield from (paragraph.text for paragraph in shape.text_frame.paragraphs if paragraph.text)
    elif getattr(shape, "has_table", False) and shape.has_table:
        for row in shape.table.rows:
            yield " | ".join(" ".join(cell.text.split()) for cell in row.cells)
    elif hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _lines(inner)
