"""Writing a collection's index: one writer a collection and host, kept by tantivy's lock file."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import msgspec
import tantivy

from ragserve.config import Language
from ragserve.index.analysis import analyzer_of
from ragserve.index.layout import (
    BODY_TOKENIZER,
    FORMAT,
    STATE_KEY,
    IndexState,
    Record,
    build_schema,
    metadata_terms,
)
from ragserve.index.reader import CollectionIndex

HEAP_BYTES = 64 * 1024**2


class CollectionWriter:
    """Opens a collection's index for writing; an unusable one is thrown away and begun again.

    ``version`` says how far it is. Use as a context manager; ``commit`` makes changes visible.
    """

    def __init__(self, directory: Path, language: Language, born: int = 0) -> None:
        # The words of all documents are in there.
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Taken before anything is thrown away: tantivy's own lock goes with the directory.
        self._lock = directory.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._open(directory, language, born)
        except BlockingIOError as error:
            self._lock.close()
            raise ValueError(f"{directory}: another writer holds the lock") from error
        except BaseException:
            self._lock.close()
            raise

    def _open(self, directory: Path, language: Language, born: int) -> None:
        state = _usable_state(directory, language, born)
        if state is None:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        self._analyzer = analyzer_of(language)
        self._language = language
        self._born = born
        index = tantivy.Index(build_schema(), path=str(directory))
        index.register_tokenizer(BODY_TOKENIZER, self._analyzer.tokenizer)
        self._writer = index.writer(heap_size=HEAP_BYTES, num_threads=1)
        self.version = 0 if state is None else state.version
        if state is None:
            self.commit(0)

    def remove(self, document_keys: Iterable[int]) -> None:
        """Forget documents."""
        for key in document_keys:
            self._writer.delete_documents_by_term("document", key)

    def add(self, chunk_id: int, document_key: int, body: str, record: Record) -> None:
        """Add a passage; ``body``, which has the title in it, is searched, ``record`` shown."""
        document = tantivy.Document()
        document.add_integer("chunk", chunk_id)
        document.add_integer("document", document_key)
        document.add_text("body", self._analyzer.prepare(body))
        document.add_text("title", self._analyzer.prepare(record.title))
        for term in metadata_terms(bytes(record.metadata)):
            document.add_text("metadata", term)
        document.add_bytes("stored", msgspec.json.encode(record))
        self._writer.add_document(document)

    def commit(self, version: int) -> None:
        """Make all changes visible and durable, together with the version they lead to."""
        state = IndexState(FORMAT, self._language, version, self._born)
        self._writer.delete_documents_by_term("document", STATE_KEY)
        document = tantivy.Document()
        document.add_integer("chunk", 0)
        document.add_integer("document", STATE_KEY)
        document.add_bytes("stored", msgspec.json.encode(state))
        self._writer.add_document(document)
        self._writer.commit()
        self.version = version

    def close(self) -> None:
        """Finish merges and give up the lock."""
        try:
            self._writer.wait_merging_threads()
        finally:
            self._lock.close()

    def __enter__(self) -> CollectionWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _usable_state(directory: Path, language: Language, born: int) -> IndexState | None:
    """Return the state of a sound index of that collection, None if it must be begun again."""
    try:
        state = CollectionIndex(directory).state
    except (ValueError, OSError, msgspec.MsgspecError):
        return None
    return state if (state.language, state.born) == (language, born) else None
