"""The host's BM25 index: derived from PostgreSQL, on disk, one directory a collection.

The ingest process writes it, every worker reads it through mmap. It holds what a search result
shows, so lexical answers need no database. Delete it and it is rebuilt.
"""

from ragserve.index.analysis import LANGUAGES, Analyzer, analyzer_of
from ragserve.index.layout import FORMAT, IndexState, Record, index_directory, metadata_terms
from ragserve.index.reader import CollectionIndex
from ragserve.index.writer import CollectionWriter

__all__ = [
    "FORMAT",
    "LANGUAGES",
    "Analyzer",
    "CollectionIndex",
    "CollectionWriter",
    "IndexState",
    "Record",
    "analyzer_of",
    "index_directory",
    "metadata_terms",
]
