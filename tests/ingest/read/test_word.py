"""Word: headings, lists and tables in their order."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import docx
import pytest
from docx.document import Document

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section, read_document


def word(write: Callable[[Document], object]) -> bytes:
    """Return a document that ``write`` has filled."""
    document = docx.Document()
    write(document)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def replaced(data: bytes, part: str, old: bytes, new: bytes) -> bytes:
    """Return a package with ``old`` replaced in one part."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(old, new) if name == part else content)
    return out.getvalue()


def test_everything_in_its_order() -> None:
    """Headings make sections, list items get dashes, cells bars, merged cells count once."""

    def write(document: Document) -> None:
        document.core_properties.title = " The\ntitle "
        document.add_paragraph("Before")
        document.add_heading("Manual", 0)
        document.add_heading("Part", 1)
        document.add_paragraph("Item", style="List Bullet")
        document.add_paragraph("Second", style="List Number 2")
        document.add_heading("Detail", 3)
        table = document.add_table(2, 3)
        for number, cell in enumerate(table.rows[0].cells):
            cell.text = f"H{number}"
        table.cell(1, 0).merge(table.cell(1, 1)).text = "wide"
        table.cell(1, 2).text = "a\nb"
        document.add_paragraph("After")

    document = read_document(word(write), "a.docx")
    assert document.title == "The title"
    assert document.sections == (
        Section("Before"),
        Section("- Item\n- Second", heading="Manual > Part"),
        Section("H0 | H1 | H2\nwide | a b\nAfter", heading="Manual > Part > Detail"),
    )


def test_entities_do_not_expand() -> None:
    """A billion laughs in the XML end at once, in an error or as nothing."""
    laughs = b'<!DOCTYPE d [<!ENTITY a0 "lol">' + b"".join(
        b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12)
    )
    data = word(lambda document: document.add_paragraph("MARK here"))
    data = replaced(data, "word/document.xml", b"MARK", b"&a11;")
    data = replaced(data, "word/document.xml", b"<w:document", laughs + b"]><w:document")
    try:
        text = read_document(data, "a.docx").sections[0].text
    except UnreadableDocument as refused:
        text = refused.message
    assert "lol" not in text


def test_entities_read_no_files(tmp_path: Path) -> None:
    """An external entity is not resolved."""
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    data = word(lambda document: document.add_paragraph("MARK").add_run("after"))
    data = replaced(data, "word/document.xml", b"MARK", b"&x;")
    doctype = f'<!DOCTYPE d [<!ENTITY x SYSTEM "{secret.as_uri()}">]><w:document'
    data = replaced(data, "word/document.xml", b"<w:document", doctype.encode())
    assert read_document(data, "a.docx").sections == (Section("after"),)


def test_damaged_packages_are_named() -> None:
    """A missing part, broken XML and broken compression are all one error."""
    data = word(lambda document: document.add_paragraph("text"))
    broken = [
        replaced(data, "word/document.xml", b"<w:body>", b"<w:body"),
        replaced(data, "[Content_Types].xml", b"wordprocessingml.document.main", b"x"),
        replaced(data, "_rels/.rels", b"word/document.xml", b"word/none.xml"),
    ]
    for damaged in broken:
        with pytest.raises(UnreadableDocument, match=r"^a\.docx: the Word document is damaged: "):
            read_document(damaged, "a.docx")


@pytest.mark.parametrize(
    ("offset", "value"),
    [(6, b"\x01"), (8, b"\x63"), (90, bytes(8)), (120, b"\xff" * 8)],
    ids=["encrypted", "compression", "deflate", "checksum"],
)
def test_damaged_archives_are_named(offset: int, value: bytes) -> None:
    """Whatever zipfile and zlib raise on a damaged entry is one error."""
    data = bytearray(word(lambda document: document.add_paragraph("text")))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.getinfo("word/document.xml")
    data[entry.header_offset + offset : entry.header_offset + offset + len(value)] = value
    central = data.index(b"word/document.xml", data.index(b"PK\x01\x02")) - 46
    if offset < 10:  # the directory says the same, two bytes further on
        data[central + offset + 2 : central + offset + 2 + len(value)] = value
    with pytest.raises(
        UnreadableDocument, match=r"^a\.docx: the (Word document|file) is damaged: "
    ):
        read_document(bytes(data), "a.docx")
