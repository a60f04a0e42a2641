"""JSON as ``path: value`` lines, JSON lines as a section for each record."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import clean, decode

MAX_DEPTH = 100
TITLES = ("title", "name", "question", "heading", "id", "_id")
"""What a record may call itself, best first."""


def read(data: bytes, name: str) -> ReadDocument:
    """Read one JSON value, or one a line."""
    text = decode(data, name)
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    try:
        whole = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        if len(lines) < 2:
            raise UnreadableDocument(f"{name}: no valid JSON: {error}") from error
    except RecursionError as error:
        raise UnreadableDocument(f"{name}: nested deeper than {MAX_DEPTH} levels") from error
    else:
        return ReadDocument(tuple(_sections(whole, name)))
    return ReadDocument(tuple(_record(line, number, name) for number, line in lines))


def _sections(value: object, name: str) -> Iterator[Section]:
    """Yield a section for each record of a list, one for anything else."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for item in value:
            yield _section(item, name)
    else:
        yield _section(value, name)


def _record(line: str, number: int, name: str) -> Section:
    try:
        return _section(msgspec.json.decode(line), name)
    except msgspec.DecodeError as error:
        raise UnreadableDocument(f"{name}: line {number} is no valid JSON: {error}") from error
    except RecursionError as error:
        raise UnreadableDocument(
            f"{name}: line {number} is nested deeper than {MAX_DEPTH} levels"
        ) from error


def _section(value: object, name: str) -> Section:
    heading = None
    if isinstance(value, dict):
        names = (value.get(key) for key in TITLES)
        texts = (str(found) for found in names if isinstance(found, str | int))
        heading = next((text for text in texts if text.strip()), None)
    text = clean("\n".join(_lines(value, "", 0, name)))
    return Section(text, heading=" ".join(clean(heading or "").split())[:200] or None)


def _lines(value: object, path: str, depth: int, name: str) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise UnreadableDocument(f"{name}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{path}.{key}" if path else str(key), depth + 1, name)
    elif isinstance(value, list) and all(not isinstance(item, dict | list) for item in value):
        if value:
            yield (
                f"{path}: {', '.join(map(_scalar, value))}"
                if path
                else "\n".join(map(_scalar, value))
            )
    elif isinstance(value, list):
        for number, item in enumerate(value, start=1):
            yield from _lines(item, f"{path}[{number}]", depth + 1, name)
    elif value is not None and value != "":
        yield f"{path}: {_scalar(value)}" if path else _scalar(value)


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
