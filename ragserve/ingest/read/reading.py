"""Which reader takes a file: its content decides first, its name and declared type second."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from importlib import import_module

from ragserve.errors import UnreadableDocument, UnsupportedFormat
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import clean, decode

Reader = Callable[[bytes, str], ReadDocument]

READERS = {
    "text": ".txt .text .log .eml",
    "markdown": ".md .markdown",
    "html": ".html .htm .xhtml",
    "rst": ".rst",
    "pdf": ".pdf",
    "word": ".docx",
    "slides": ".pptx",
    "sheets": ".xlsx .xlsm .xlsb .xls .ods",
    "table": ".csv .tsv",
    "json": ".json .jsonl .ndjson",
    "code": ".py .js .mjs .ts .tsx .jsx .go .rs .java .kt .scala .c .h .cc .cpp .hpp .cs .rb .php"
    " .pl .sh .sql .yaml .yml .toml .ini .cfg .conf .css .proto .tf .lua .r .swift .xml .tex",
}
"""Module of the reader to the suffixes it takes."""
BY_SUFFIX = {suffix: reader for reader, suffixes in READERS.items() for suffix in suffixes.split()}
SUFFIXES = frozenset(BY_SUFFIX)
"""What a walk through folders takes."""

BY_TYPE = {
    "text/plain": "text",
    "text/markdown": "markdown",
    "text/html": "html",
    "application/xhtml+xml": "html",
    "text/x-rst": "rst",
    "text/csv": "table",
    "text/tab-separated-values": "table",
    "application/json": "json",
    "application/x-ndjson": "json",
    "application/pdf": "pdf",
}
PARTS = {"word/": "word", "ppt/": "slides", "xl/": "sheets"}
"""Where an Office Open XML package keeps its content."""
MAGIC = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "a gzip archive",
    b"BZh91AY&SY": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"Rar!\x1a": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"SQLite format 3\0": "an SQLite database",
    b"ID3\x03": "an MP3 recording",
    b"ID3\x04": "an MP3 recording",
    b"OggS\0": "an Ogg recording",
}
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
UNPACKED_BYTES = 512 * 1024**2
"""An Office package that unpacks to more is a bomb, or no document."""


def read_document(data: bytes, name: str, content_type: str | None = None) -> ReadDocument:
    """Return a document's text.

    Raises ``UnsupportedFormat`` or ``UnreadableDocument``, whose message names the file and why.
    """
    if not data.strip():
        raise UnreadableDocument(f"{name}: the file is empty")
    kind = _kind(data, name, content_type)
    if kind == "text":
        document = ReadDocument((Section(clean(decode(data, name))),))
    else:
        read: Reader = import_module(f"ragserve.ingest.read.{kind}").read
        document = read(data, name)
    if not any(section.text.strip() for section in document.sections):
        raise UnreadableDocument(f"{name}: no text in it")
    return document


def _kind(data: bytes, name: str, content_type: str | None) -> str:
    """Return the name of the reader's module."""
    suffix = _suffix(name)
    named = BY_SUFFIX.get(suffix)
    # The header may follow other bytes (ISO 32000-1, note 13), but a text may just mention it.
    if data.startswith(b"%PDF-") or (named in ("pdf", None) and b"%PDF-" in data[:1024]):
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        return _packaged(data, name, named)
    if data.startswith(OLE):
        return _compound(data, name, named)
    for magic, what in MAGIC.items():
        if data.startswith(magic):
            raise UnreadableDocument(f"{name}: the content is {what}")
    if named in ("pdf", "word", "slides", "sheets"):
        if _looks_like_html(data):
            return "html"
        raise UnreadableDocument(f"{name}: the content is no {suffix} document")
    if b"\0" in data[:8192] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableDocument(f"{name}: the content is binary, not text")
    declared = BY_TYPE.get((content_type or "").partition(";")[0].strip().lower())
    # text/plain is what uploads say who do not know; a name that says more goes before it.
    if declared is not None and (declared != "text" or named is None):
        return declared
    if named is not None:
        return named
    if suffix and (content_type or "application/octet-stream").startswith("application/"):
        raise UnsupportedFormat(f"{name}: no reader for {suffix} files")
    return "html" if _looks_like_html(data) else "text"


def _suffix(name: str) -> str:
    last = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = last.rpartition(".")
    known = dot and stem and len(suffix) <= 8 and suffix.isalnum() and not suffix.isdigit()
    return f".{suffix.lower()}" if known else ""


def _looks_like_html(data: bytes) -> bool:
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html"))


def _packaged(data: bytes, name: str, named: str | None) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as package:
            entries = package.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise UnreadableDocument(f"{name}: the file is damaged: {error}") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > UNPACKED_BYTES:
        raise UnreadableDocument(
            f"{name}: unpacks to {unpacked} bytes, the limit is {UNPACKED_BYTES}"
        )
    names = [entry.filename for entry in entries]
    for prefix, kind in PARTS.items():
        if "[Content_Types].xml" in names and any(part.startswith(prefix) for part in names):
            return kind
    if named == "sheets" and "content.xml" in names:
        return "sheets"  # OpenDocument
    raise UnreadableDocument(f"{name}: the content is a ZIP archive, no Office document")


def _compound(data: bytes, name: str, named: str | None) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise UnreadableDocument(f"{name}: the document is encrypted")
    if named == "sheets":
        return "sheets"
    raise UnsupportedFormat(f"{name}: an Office document of before 2007; save it as .docx or .pptx")
