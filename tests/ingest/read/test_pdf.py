"""PDF: the text layer, page by page."""

from __future__ import annotations

import io

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section
from ragserve.ingest.read.pdf import read


def pdf(*pages: str, title: str = "", encrypt: StandardEncryption | None = None) -> bytes:
    """Return a document with the lines of each page."""
    out = io.BytesIO()
    canvas = Canvas(out, invariant=1, encrypt=encrypt)
    canvas.setTitle(title)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            canvas.drawString(72, 760 - 17 * number, line)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def refusal(data: bytes) -> str:
    """Return the message of the error."""
    with pytest.raises(UnreadableDocument) as refused:
        read(data, "a.pdf")
    return refused.value.message


def test_pages_are_sections() -> None:
    """Each page with text is a section with its number; an empty page keeps its number."""
    document = read(pdf("One\nline two", "", "Three", title="The  title"), "a.pdf")
    assert document.title == "The title"
    assert document.sections == (Section("One\nline two", page=1), Section("Three", page=3))


def test_hyphens_at_line_ends() -> None:
    """A word cut at the end of a line is joined; names and years keep their hyphens."""
    (section,) = read(
        pdf("The intro-\nduction of Anglo-\nSaxon rules\nin 2020-\n2024"), "a.pdf"
    ).sections
    assert section.text == "The introduction of Anglo-Saxon rules\nin 2020-\n2024"  # fmt: skip


@pytest.mark.parametrize(
    "title", ["", "untitled", "Microsoft Word - a.doc", "report.docx", "Unbenanntes Dokument"]
)
def test_titles_nobody_chose(title: str) -> None:
    """What a word processor puts where nobody has set a title is none."""
    assert read(pdf("x", title=title), "a.pdf").title is None


def test_unreadable_files() -> None:
    """Encrypted, damaged and scanned files say so."""
    secret = StandardEncryption("user", ownerPassword="owner", strength=128)
    assert refusal(pdf("x", encrypt=secret)) == "a.pdf: the PDF is encrypted with a password"
    assert refusal(pdf("x")[:400]).startswith("a.pdf: the PDF is damaged: ")
    assert refusal(pdf("", "")) == (
        "a.pdf: no text layer (pages: 2); run text recognition (OCR) first"
    )


def test_an_owner_password_alone_is_no_obstacle() -> None:
    """A file that anyone may open is read, whatever else its owner forbids."""
    owned = StandardEncryption("", ownerPassword="owner", canPrint=0, strength=128)
    assert read(pdf("x", encrypt=owned), "a.pdf").sections == (Section("x", page=1),)
