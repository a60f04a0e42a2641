"""PowerPoint: slides are pages, with what is on them and in their notes."""

from __future__ import annotations

import io
import zipfile

import pptx
import pytest
from pptx.util import Inches

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section, read_document

BOX = [Inches(1)] * 4


def test_slides_are_pages() -> None:
    """Title above, then text, tables, groups and notes; a line break is a line."""
    presentation = pptx.Presentation()
    presentation.core_properties.title = "The talk"
    layout = presentation.slide_layouts
    first = presentation.slides.add_slide(layout[1])
    first.shapes.title.text = "Part\vone"
    first.placeholders[1].text = "a\vb\nc"
    first.notes_slide.notes_text_frame.text = "Say hello."
    presentation.slides.add_slide(layout[6])
    third = presentation.slides.add_slide(layout[6])
    table = third.shapes.add_table(2, 2, *BOX).table
    for number, text in enumerate(["H1", "H2", "x\ny", "z"]):
        table.cell(number // 2, number % 2).text = text
    third.shapes.add_group_shape().shapes.add_textbox(*BOX).text_frame.text = "grouped"
    fourth = presentation.slides.add_slide(layout[5])
    fourth.shapes.title.text = "Only a title"
    out = io.BytesIO()
    presentation.save(out)
    document = read_document(out.getvalue(), "a.pptx")
    assert document.title == "The talk"
    assert document.sections == (
        Section("a\nb\nc\nSay hello.", page=1, heading="Part one"),
        Section("H1 | H2\nx y | z\ngrouped", page=3),
        Section("Only a title", page=4, heading="Only a title"),
    )


def test_the_templates_title_is_none() -> None:
    """The title that every new presentation has says nothing."""
    presentation = pptx.Presentation()
    presentation.slides.add_slide(presentation.slide_layouts[5]).shapes.title.text = "x"
    out = io.BytesIO()
    presentation.save(out)
    assert read_document(out.getvalue(), "a.pptx").title is None


def test_damaged_packages_are_named() -> None:
    """A package without its parts is refused."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("ppt/presentation.xml", "<p/>")
    with pytest.raises(UnreadableDocument, match=r"^a\.pptx: the presentation is damaged: "):
        read_document(out.getvalue(), "a.pptx")
