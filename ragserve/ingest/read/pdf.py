"""PDF by pdfium: a section for each page."""

from __future__ import annotations

import re
from contextlib import closing

import pypdfium2

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import clean

FPDF_ERR_PASSWORD = 4  # fpdfview.h
# A lower-case word cut at the end of a line. pdfium writes U+FFFE or, before 2025, U+0002 for a
# hyphen there and takes away the line end; "Anglo-Saxon" keeps the hyphen.
_CUT_WORD = re.compile(r"([a-zß-ÿ]{2,})(?:-\n|[\ufffe\x02]\n?)([a-zß-ÿ]{2,})")
_CUT_COMPOUND = re.compile(r"[\ufffe\x02]")
# What word processors put where nobody has set a title.
_NO_TITLE = re.compile(r"untitled|microsoft word - |unbenannt|\.(docx?|pptx?|indd|dvi|tex)$", re.I)


def read(data: bytes, name: str) -> ReadDocument:
    """Return the text layer, page by page."""
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == FPDF_ERR_PASSWORD or "assword" in str(error):
            raise UnreadableDocument(f"{name}: the PDF is encrypted with a password") from error
        raise UnreadableDocument(f"{name}: the PDF is damaged: {error}") from error
    with document:
        sections = []
        for number in range(len(document)):
            text = _page_text(document, number, name)
            if text:
                sections.append(Section(text, page=number + 1))
        title = " ".join(clean(document.get_metadata_value("Title")).split())
        pages = len(document)
    if not sections:
        raise UnreadableDocument(
            f"{name}: no text layer (pages: {pages}); run text recognition (OCR) first"
        )
    return ReadDocument(tuple(sections), title if title and not _NO_TITLE.search(title) else None)


def _page_text(document: pypdfium2.PdfDocument, number: int, name: str) -> str:
    try:
        with closing(document[number]) as page, closing(page.get_textpage()) as layer:
            text: str = layer.get_text_bounded()
    except pypdfium2.PdfiumError as error:
        raise UnreadableDocument(f"{name}: page {number + 1} is damaged: {error}") from error
    text = _CUT_WORD.sub(r"\1\2", text.replace("\r\n", "\n"))
    return clean(_CUT_COMPOUND.sub("-", text)).strip()
