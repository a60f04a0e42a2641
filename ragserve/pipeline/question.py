"""A question as the pipeline works with it: checked, with every default filled in."""

from __future__ import annotations

import msgspec

from ragserve.config import LimitsConfig
from ragserve.errors import InvalidRequest
from ragserve.generate import NO_CONVERSATION, Conversation
from ragserve.retrieve import Filter, parse_filter
from ragserve.schema import Mode, SearchRequest
from ragserve.store.collections import Collection


class Asked(msgspec.Struct, frozen=True):
    """What somebody wants to know of a collection, as it was when they asked.

    ``request`` is what they sent; ``top_k`` and ``mode`` are what it means.
    """

    request: SearchRequest
    collection: Collection
    top_k: int
    mode: Mode
    filter: Filter | None
    conversation: Conversation = NO_CONVERSATION

    @property
    def text(self) -> str:
        """Return the question's words."""
        return self.request.query

    def identity(self) -> bytes:
        """Return what tells this question from every other: equal bytes, equal answers."""
        collection = self.collection
        return msgspec.json.encode(
            (
                collection.tenant,
                collection.id,
                collection.version,
                self.text,
                self.top_k,
                self.mode,
                self.request.filter,
                self.conversation,
            ),
            order="deterministic",
        )


def check_question(
    request: SearchRequest, limits: LimitsConfig, top_k: int
) -> tuple[int, Filter | None]:
    """Return ``top_k`` and the parsed filter; raise ``InvalidRequest`` naming the field."""
    if not request.query.strip():
        raise InvalidRequest("query is empty", param="query")
    if len(request.query) > limits.query_characters:
        raise InvalidRequest(
            f"query has {len(request.query)} characters, "
            f"limits.query_characters = {limits.query_characters}",
            param="query",
        )
    top_k = request.top_k or top_k
    if top_k > limits.top_k:
        raise InvalidRequest(
            f"top_k = {top_k} is over limits.top_k = {limits.top_k}", param="top_k"
        )
    return top_k, parse_filter(request.filter)
