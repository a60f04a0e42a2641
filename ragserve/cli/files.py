"""Files to ingest: found below folders, read in batches, refused by name and reason."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ragserve.ingest.read import SUFFIXES
from ragserve.store.jobs import NewDocument

BATCH_DOCUMENTS = 200
BATCH_BYTES = 8 * 1024**2


class Found(msgspec.Struct):
    """``files`` to ingest, files ``refused`` with a reason, files ``ignored`` for their kind."""

    files: list[Path]
    refused: list[tuple[str, str]]
    ignored: list[Path]


def find_files(paths: Sequence[Path], limit_bytes: int) -> Found:
    """Return the files of ``paths`` in a stable order.

    Of folders, hidden entries are left out and only known kinds are taken; a file that is named
    is always tried.
    """
    found = Found([], [], [])
    for path in paths:
        if not path.is_dir():
            _sort_in(found, path, limit_bytes)
            continue
        for directory, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                file = Path(directory, name)
                if file.suffix.lower() in SUFFIXES:
                    _sort_in(found, file, limit_bytes)
                else:
                    found.ignored.append(file)
    return found


def _sort_in(found: Found, file: Path, limit_bytes: int) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        found.refused.append((str(file), error.strerror or str(error)))
        return
    if size > limit_bytes:
        reason = f"{size} bytes, limits.document_bytes = {limit_bytes}"
        found.refused.append((str(file), reason))
    else:
        found.files.append(file)


def batches(found: Found) -> Iterator[list[NewDocument]]:
    """Yield the documents of ``found.files``; a file that cannot be opened is refused."""
    batch: list[NewDocument] = []
    size = 0
    for file in found.files:
        try:
            content = file.read_bytes()
        except OSError as error:
            found.refused.append((str(file), error.strerror or str(error)))
            continue
        if batch and (len(batch) == BATCH_DOCUMENTS or size + len(content) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        path = str(file.resolve())
        batch.append(NewDocument(id=path, name=path, content=content))
        size += len(content)
    if batch:
        yield batch
