"""Which reader takes a file, and what people are told when none can."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ragserve.errors import RagserveError, UnreadableDocument, UnsupportedFormat
from ragserve.ingest.read import SUFFIXES, read_document, reading
from tests.conftest import DOCUMENTS

HANDBOOK = sorted((DOCUMENTS / "handbook").iterdir())
BROKEN = sorted((DOCUMENTS / "broken").iterdir())
OLE = bytes.fromhex("d0cf11e0a1b11ae1")


def refusal(data: bytes, name: str, content_type: str | None = None) -> tuple[type, str]:
    """Return the type and message of the error."""
    with pytest.raises(RagserveError) as refused:
        read_document(data, name, content_type)
    return type(refused.value), refused.value.message


def package(*names: str) -> bytes:
    """Return a ZIP archive of empty files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return out.getvalue()


@pytest.mark.parametrize("file", HANDBOOK, ids=lambda file: file.name)
def test_the_handbook_is_read(file: Path) -> None:
    """Every good file has text, none of it empty, blank at an end or unfit for storing."""
    document = read_document(file.read_bytes(), file.name)
    assert document.sections
    for section in document.sections:
        assert section.text.strip()
        assert section.text == section.text.strip("\n")
        assert "\0" not in section.text
        assert "\ufffd" not in section.text


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.name)
def test_broken_files_are_refused_by_name(file: Path) -> None:
    """Every broken file is unreadable, and the message begins with its name."""
    kind, message = refusal(file.read_bytes(), file.name)
    assert kind is UnreadableDocument
    assert message.startswith(f"{file.name}: ")


def test_every_suffix_of_the_handbook_is_known() -> None:
    """A walk through folders takes all of the handbook."""
    assert {file.suffix for file in HANDBOOK} <= SUFFIXES


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b" \n\t", "a.txt", "the file is empty"),
        (b"\xef\xbb\xbf", "a.txt", "no text in it"),
        (b"\x01\x02", "a.txt", "no text in it"),
        (b"<p> </p>", "a.html", "no text in it"),
        (b"text\0text", "a.md", "the content is binary, not text"),
        (b"\x89PNG\r\n", "a.pdf", "the content is a PNG image"),
        (b"\x7fELF\x02", "a.txt", "the content is a program"),
        (b"plain", "a.pdf", "the content is no .pdf document"),
        (b"plain", "A.DOCX", "the content is no .docx document"),
        (OLE + "EncryptedPackage".encode("utf-16-le"), "a.xlsx", "the document is encrypted"),
        (b"PK\x03\x04", "a.docx", "the file is damaged: File is not a zip file"),
        (package("x.txt"), "a.docx", "the content is a ZIP archive, no Office document"),
        (package("word/document.xml"), "a.zip", "the content is a ZIP archive, no Office document"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unreadable_content(data: bytes, name: str, reason: str) -> None:
    """What is wrong with the content is said after the name."""
    assert refusal(data, name) == (UnreadableDocument, f"{name}: {reason}")


def test_unknown_formats() -> None:
    """A suffix no reader takes is unsupported, unless the upload says that it is text."""
    assert refusal(b"hello", "a.xyz") == (UnsupportedFormat, "a.xyz: no reader for .xyz files")
    assert refusal(OLE + bytes(600), "a.doc") == (
        UnsupportedFormat,
        "a.doc: an Office document of before 2007; save it as .docx or .pptx",
    )
    assert read_document(b"hello", "a.xyz", "text/plain").sections[0].text == "hello"


@pytest.mark.parametrize("name", ["Makefile", "notes 12.05.2025", ".profile", "C:\\d.x\\file"])
def test_names_without_a_suffix_are_text(name: str) -> None:
    """A name says nothing if nothing in it is a suffix."""
    assert read_document(b"hello", name).sections[0].text == "hello"


def test_mislabelled_files_are_read_by_content() -> None:
    """Content goes before the name, and a name before a declared text/plain."""
    html = b"<!DOCTYPE html><title>T</title><p>x"
    assert read_document(html, "page.pdf").title == "T"
    assert read_document(html, "page").title == "T"
    assert read_document(b"<title>T</title><p>x", "page", "text/html; charset=utf-8").title == "T"
    word = (DOCUMENTS / "handbook" / "travel-policy.docx").read_bytes()
    pdf = (DOCUMENTS / "handbook" / "onboarding.pdf").read_bytes()
    assert read_document(word, "a.pdf") == read_document(word, "a.docx")
    assert read_document(b"junk\n" + pdf, "a.pdf").sections[0].page == 1
    assert read_document(b"# H\nx", "a.md", "text/plain").sections[0].heading == "H"


@pytest.mark.parametrize("text", ["x = b'%PDF-1.7'", "RIFF is a container", "GIF8 and BZh"])
def test_a_text_may_mention_a_format(text: str) -> None:
    """Signatures of other formats in a text leave it a text."""
    assert read_document(text.encode(), "a.py").sections[0].text == text


def test_packages_that_unpack_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ZIP bomb is refused before anything is unpacked."""
    monkeypatch.setattr(reading, "UNPACKED_BYTES", 1000)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", b"")
        archive.writestr("word/document.xml", bytes(1001))
    assert refusal(out.getvalue(), "bomb.docx") == (
        UnreadableDocument,
        "bomb.docx: unpacks to 1001 bytes, the limit is 1000",
    )


def test_readers_are_imported_on_demand() -> None:
    """Importing the package costs none of the parsers."""
    heavy = "pypdfium2 docx pptx lxml docutils charset_normalizer markdown_it python_calamine"
    code = f"import sys, ragserve.ingest.read; print(set({heavy.split()}) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
