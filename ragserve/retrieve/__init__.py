"""Finding passages: vectors, BM25, or both fused, under filters, reranked."""

from ragserve.retrieve.filter import Filter, parse_filter
from ragserve.retrieve.indexes import Indexes
from ragserve.retrieve.relevance import relevant
from ragserve.retrieve.rerank import Reranker
from ragserve.retrieve.search import PATIENCE_S, Found, Question, retrieve

__all__ = [
    "PATIENCE_S",
    "Filter",
    "Found",
    "Indexes",
    "Question",
    "Reranker",
    "parse_filter",
    "relevant",
    "retrieve",
]
