"""A question as the pipeline works with it: checked, with every default filled in."""

from __future__ import annotations

import msgspec

from ragserve.cache.key import Kind, Scope, normalised, question_key, recipe_of
from ragserve.config import Config, LimitsConfig
from ragserve.errors import InvalidRequest
from ragserve.generate import NO_CONVERSATION, PROMPT_VERSION, Conversation
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

    def scope(self, kind: Kind, recipe: bytes) -> Scope:
        """Return everything but the words that decides the answer."""
        collection = self.collection
        return Scope(
            kind,
            collection.tenant,
            collection.id,
            collection.born,
            collection.version,
            self.top_k,
            self.mode,
            self.request.filter or None,
            None if self.conversation == NO_CONVERSATION else self.conversation,
            recipe,
        )

    def key(self, kind: Kind, recipe: bytes, *, fold_case: bool) -> bytes:
        """Return what tells this question from every other: equal keys, equal answers."""
        words = normalised(self.text, fold_case=fold_case)
        return question_key(self.scope(kind, recipe).partition(), words)


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


def recipe(config: Config, embedder: str) -> bytes:
    """Return what stands for everything configured that decides what an answer says."""
    servers = [msgspec.structs.replace(server, api_key="") for server in config.llm.upstreams]
    llm = msgspec.structs.replace(config.llm, api_key="", upstreams=tuple(servers))
    rerank = msgspec.structs.replace(config.rerank, api_key="")
    return recipe_of(embedder, config.search, rerank, config.answer, llm, PROMPT_VERSION)
