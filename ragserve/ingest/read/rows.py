"""Rows of a table as text: each can be understood alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.text import clean

MAX_CELLS = 2_000_000
"""More is data for a database, not a document."""


def check_cells(cells: int, name: str) -> None:
    """Refuse a table of more cells than the limit."""
    if cells > MAX_CELLS:
        raise UnreadableDocument(f"{name}: {cells} cells, the limit is {MAX_CELLS}")


def row_lines(rows: Sequence[Sequence[object]], name: str) -> Iterator[str]:
    """Yield ``Header: value; Header: value`` lines; the first row that is not empty is the header.

    A table of a single row is yielded as it is.
    """
    check_cells(sum(map(len, rows)), name)
    texts = [[cell_text(cell) for cell in row] for row in rows]
    texts = [row for row in texts if any(row)]
    if not texts:
        return
    header, *body = texts
    if not body:
        yield "; ".join(cell for cell in header if cell)
    for row in body:
        pairs = [
            f"{header[number]}: {cell}" if number < len(header) and header[number] else cell
            for number, cell in enumerate(row)
            if cell
        ]
        yield "; ".join(pairs)


def cell_text(value: object) -> str:
    """Return a cell as a person would write it: 3.0 is 3, midnight is no time."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dt.datetime):
        return value.date().isoformat() if value.time() == dt.time() else value.isoformat(" ")
    return " ".join(clean(str(value)).split())
