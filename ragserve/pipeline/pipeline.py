"""The entrance: questions in, answers out; what is asked twice is computed once."""

from __future__ import annotations

import msgspec

from ragserve.cache import Answers, Wishes
from ragserve.cache.directives import ANY
from ragserve.cache.elsewhere import Elsewhere
from ragserve.cache.shared import SharedCache
from ragserve.config import Config
from ragserve.embed import Embedder
from ragserve.flow.context import Context
from ragserve.flow.flight import Publish
from ragserve.generate import NO_CONVERSATION, Conversation, LanguageModel
from ragserve.pipeline.answering import Answering
from ragserve.pipeline.caching import Caching
from ragserve.pipeline.events import Event
from ragserve.pipeline.gates import Gates
from ragserve.pipeline.making import Answered
from ragserve.pipeline.paraphrases import Paraphrases
from ragserve.pipeline.question import Asked, check_question, recipe
from ragserve.pipeline.relaying import Relaying
from ragserve.pipeline.replay import replay
from ragserve.pipeline.vectors import Vectors
from ragserve.retrieve import Indexes, Reranker
from ragserve.schema import QueryResponse, SearchRequest, SearchResponse
from ragserve.store.catalog import Catalog
from ragserve.store.replica import Searches


class Pipeline:
    """Answers searches and questions from the parts it is given."""

    def __init__(
        self,
        config: Config,
        searches: Searches,
        catalog: Catalog,
        indexes: Indexes,
        embedder: Embedder,
        model: LanguageModel | None,
        answers: Answers,
        gates: Gates,
        shared: SharedCache | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self._config = config
        self.entrance = gates.admission(writes=model is not None)
        """Of questions; that of searches is ``search_entrance``."""
        self.search_entrance = gates.admission(writes=False)
        self.relaying = None if model is None else Relaying(model, gates.llm)
        """What clients ask the language model itself; None without one."""
        self._recipe = recipe(config, embedder.name)
        self._catalog = catalog
        vectors = Vectors(embedder, config.embedding.cache_bytes, shared)
        answering = Answering(
            config.search,
            config.answer,
            searches,
            indexes,
            embedder,
            vectors,
            model,
            gates,
            reranker,
        )
        timeout_s = config.server.request_timeout_s
        elsewhere = None if shared is None else Elsewhere(shared)
        threshold = config.cache.similarity
        paraphrases = (
            Paraphrases("query", self._recipe, threshold, answers, vectors) if threshold else None
        )
        self._questions = Caching(
            answers, elsewhere, answering.answer, as_hit, timeout_s, self.entrance, paraphrases
        )
        self._searches = Caching(
            answers, elsewhere, answering.search, lambda r: r, timeout_s, self.search_entrance
        )

    async def search(
        self, request: SearchRequest, context: Context, wishes: Wishes = ANY
    ) -> Answered[SearchResponse]:
        """Return passages, best first."""
        asked = await self._asked(request, context, self._config.search.top_k)
        key = asked.key("search", self._recipe, fold_case=self._config.cache.fold_case)
        return await self._searches.ask(asked, key, context, wishes)

    async def answer(
        self,
        request: SearchRequest,
        context: Context,
        wishes: Wishes = ANY,
        hear: Publish[Event] | None = None,
        conversation: Conversation = NO_CONVERSATION,
    ) -> Answered[QueryResponse]:
        """Answer a question from the best passages, with citations.

        ``hear`` is called with each event of an answer that is computed as it comes about.
        """
        asked = await self._asked(request, context, self._config.answer.top_k, conversation)
        key = asked.key("query", self._recipe, fold_case=self._config.cache.fold_case)
        return await self._questions.ask(asked, key, context, wishes, hear)

    async def query(
        self,
        request: SearchRequest,
        context: Context,
        hear: Publish[Event] | None = None,
        conversation: Conversation = NO_CONVERSATION,
        wishes: Wishes = ANY,
    ) -> QueryResponse:
        """Answer a question; ``hear`` is told a kept answer, too."""
        answered = await self.answer(request, context, wishes, hear, conversation)
        if answered.value is not None:
            return answered.value
        assert answered.entry is not None  # noqa: S101 - one of them is there
        kept = msgspec.json.decode(answered.entry.prepared.body, type=QueryResponse)
        if hear is not None:
            await replay(kept, hear, self._config.stream.replay_ms / 1000, context.deadline)
        return kept

    async def close(self) -> None:
        """Stop what goes on behind the questions."""
        await self._questions.close()
        await self._searches.close()

    async def _asked(
        self,
        request: SearchRequest,
        context: Context,
        top_k: int,
        conversation: Conversation = NO_CONVERSATION,
    ) -> Asked:
        top_k, parsed = check_question(request, self._config.limits, top_k)
        context.principal.check_collection(request.collection)
        collection = await self._catalog.get(context.tenant, request.collection)
        mode = request.mode or self._config.search.mode
        return Asked(request, collection, top_k, mode, parsed, conversation)


def as_hit(answer: QueryResponse) -> QueryResponse:
    """Return a computed answer as those get it who ask later."""
    return msgspec.structs.replace(answer, cache="hit")
