"""Source code and configuration files, as they are."""

from __future__ import annotations

from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import clean, decode


def read(data: bytes, name: str) -> ReadDocument:
    """Return the text in one section."""
    return ReadDocument((Section(clean(decode(data, name))),))
