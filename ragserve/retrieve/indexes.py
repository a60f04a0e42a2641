"""The readers of all collections' indexes in this process, opened on first use."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from ragserve.errors import Unavailable
from ragserve.index import CollectionIndex, index_directory
from ragserve.store.collections import Collection

log = structlog.get_logger(__name__)

OPEN_INDEXES = 256
"""Each costs some file descriptors; the one unused for longest is closed."""


class Indexes:
    """A bounded set of ``CollectionIndex`` by collection."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._open: dict[int, CollectionIndex] = {}

    def get(self, collection: Collection, now: float) -> CollectionIndex:
        """Return a fresh reader; raise ``Unavailable`` while there is no usable index."""
        index = self._open.pop(collection.id, None)
        try:
            if index is None:
                index = CollectionIndex(index_directory(self._data_dir, collection.id))
            index.refresh(now)
            if index.state.born != collection.born:
                raise ValueError("what is there belongs to another database")
        except (ValueError, OSError, msgspec.MsgspecError) as error:
            raise Unavailable(
                f"index: collection {collection.name!r} has no search index yet: {error}",
                retry_after_s=1.0,
            ) from error
        self._open[collection.id] = index
        while len(self._open) > OPEN_INDEXES:
            del self._open[next(iter(self._open))]
        return index

    def version(self, collection: Collection, now: float) -> int:
        """Return up to which version the collection is indexed here; -1 without an index."""
        try:
            index = self.get(collection, now)
        except Unavailable:
            return -1
        index.refresh(now, every_s=0.0)
        return index.state.version

    def __len__(self) -> int:
        return len(self._open)

    def __repr__(self) -> str:
        return f"<Indexes {len(self)} open>"
