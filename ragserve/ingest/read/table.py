"""CSV and TSV: every row with its header."""

from __future__ import annotations

import csv
import io

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.rows import row_lines
from ragserve.ingest.read.text import clean, decode

DELIMITERS = ",;\t|"
SAMPLE_CHARACTERS = 16_384


def read(data: bytes, name: str) -> ReadDocument:
    """Return all rows in one section."""
    text = clean(decode(data, name))
    try:
        dialect: type[csv.Dialect] | str = csv.Sniffer().sniff(text[:SAMPLE_CHARACTERS], DELIMITERS)
    except csv.Error:
        dialect = "excel-tab" if name.lower().endswith(".tsv") else "excel"
    try:
        rows = list(csv.reader(io.StringIO(text), dialect))
    except csv.Error as error:
        raise UnreadableDocument(f"{name}: unreadable table: {error}") from error
    return ReadDocument((Section("\n".join(row_lines(rows, name))),))
