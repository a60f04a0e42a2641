"""The file of a backup: a zip of a manifest, the configuration without secrets, and the database.

Zip for its checksums and because it can be written and read in one go; the database's archive is
compressed already.
"""

from __future__ import annotations

import datetime as dt
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ragserve.errors import RagserveError

FORMAT = 1
"""Raised whenever an older release could not read the file."""
MANIFEST = "manifest.json"
CONFIGURATION = "ragserve.toml"
DATABASE = "database.dump"


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds: ``tables`` counts the rows of each, ``postgres`` is a version number
    such as 180004, ``migration`` the number of the newest one applied."""

    format: int
    ragserve: str
    created_at: dt.datetime
    postgres: int
    pgvector: str
    schema: str
    migration: int
    tables: dict[str, int]


def listed(counts: Mapping[str, int]) -> str:
    """Return how many rows of which tables there are, as one says it.

    >>> listed({"collections": 1, "documents": 18})
    '1 collection, 18 documents'
    """
    return ", ".join(
        f"{rows} {name.removesuffix('s') if rows == 1 else name}" for name, rows in counts.items()
    )


@contextmanager
def new_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yield an archive that gets its name only when it is complete and on disk."""
    if path.exists():
        raise RagserveError(f"{path} exists; choose another name")
    partial = path.with_name(path.name + ".partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise RagserveError(f"{partial}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                yield archive
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    except OSError as error:
        raise RagserveError(f"{partial}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def open_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, Manifest]]:
    """Yield a backup and its manifest; damage found meanwhile is a ``RagserveError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = msgspec.json.decode(archive.read(MANIFEST), type=Manifest)
            if manifest.format > FORMAT:
                raise RagserveError(
                    f"{path} has format {manifest.format}, this ragserve reads {FORMAT}: "
                    f"use ragserve {manifest.ragserve} or newer"
                )
            yield archive, manifest
    except OSError as error:
        raise RagserveError(f"{path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, msgspec.MsgspecError, KeyError, EOFError) as error:
        raise RagserveError(f"{path} is no backup, or damaged: {error}") from error
