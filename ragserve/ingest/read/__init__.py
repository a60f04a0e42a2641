"""Readers: bytes of a file in, its text in sections out.

One module a family of formats; ``reading`` decides by content first and by name second, so that a
mislabelled file is caught. Readers are synchronous, run in a child process with a deadline and a
memory limit, and know nothing of the store.
"""

from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.reading import SUFFIXES, read_document

__all__ = ["SUFFIXES", "ReadDocument", "Section", "read_document"]
