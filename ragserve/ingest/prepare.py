"""What runs in a reading process: bytes of a document to titled passages.

Everything here is synchronous and may be killed at any moment.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal

import msgspec

from ragserve.config import ChunkingConfig
from ragserve.errors import RagserveError, UnreadableDocument
from ragserve.ingest.chunk import Chunker
from ragserve.ingest.read import read_document
from ragserve.store.documents import NewChunk

PR_SET_PDEATHSIG = 1  # prctl(2)


class Source(msgspec.Struct, frozen=True):
    """A document to read; ``title`` goes before the one it gives itself."""

    name: str
    content: bytes
    content_type: str | None = None
    title: str | None = None


class Prepared(msgspec.Struct, frozen=True):
    """A document that was read; it has at least one passage."""

    title: str
    chunks: list[NewChunk]


class Refused(msgspec.Struct, frozen=True):
    """A document that cannot be read, and why."""

    reason: str


_chunker: Chunker | None = None


def start_process(chunking: ChunkingConfig, memory_bytes: int) -> None:
    """Prepare a reading process: dies with its parent, cannot eat the host, is polite."""
    global _chunker
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _chunker = Chunker(chunking)


def process_id() -> int:
    """Return the reading process's id, for whoever may have to end it."""
    return os.getpid()


def prepare(sources: list[Source]) -> list[Prepared | Refused]:
    """Read and cut documents; one that cannot be read does not stop the others."""
    return [_prepare_one(source) for source in sources]


def _prepare_one(source: Source) -> Prepared | Refused:
    assert _chunker is not None  # noqa: S101 - set by start_process
    try:
        document = read_document(source.content, source.name, source.content_type)
        chunks = _chunker.chunks(document)
        if not chunks:
            raise UnreadableDocument(f"{source.name}: no text in it")
    except RagserveError as error:
        return Refused(error.message)
    except (MemoryError, RecursionError) as error:
        return Refused(f"{source.name}: {type(error).__name__} while reading it")
    return Prepared(source.title or document.title or _title_of(source.name), chunks)


def _title_of(name: str) -> str:
    """Return the last part of a path."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name
