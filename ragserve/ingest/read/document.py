"""What every reader returns."""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True):
    """A stretch of text that shares one place in its document.

    ``page`` counts from 1 (a slide, a sheet and a PDF page are pages); ``heading`` is the path of
    headings above the text, outermost first, joined with `` > ``.
    """

    text: str
    page: int | None = None
    heading: str | None = None


class ReadDocument(msgspec.Struct, frozen=True):
    """A document's text. ``title`` is the one the document gives itself, if any."""

    sections: tuple[Section, ...]
    title: str | None = None
