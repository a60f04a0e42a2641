"""Questions with their defaults filled in, and what makes two of them the same."""

from __future__ import annotations

import msgspec
import pytest

from ragserve.generate import Conversation, Options, Turn
from ragserve.pipeline.question import Asked, recipe
from ragserve.schema import SearchRequest
from ragserve.store.collections import Collection
from tests.conftest import configured

COLLECTION = Collection(1, "default", "default", "en", "hashing-384", 384, 5, 1_700_000_000)
ASKED = Asked(SearchRequest("when is lunch?"), COLLECTION, 6, "hybrid", None)
RECIPE = recipe(configured(), "hashing-384")


def key(asked: Asked, *, fold_case: bool = False) -> bytes:
    return asked.key("query", RECIPE, fold_case=fold_case)


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(ASKED, top_k=7),
        msgspec.structs.replace(ASKED, mode="dense"),
        msgspec.structs.replace(ASKED, request=SearchRequest("when is dinner?")),
        msgspec.structs.replace(ASKED, request=SearchRequest("when is lunch?", filter={"a": 1})),
        msgspec.structs.replace(ASKED, conversation=Conversation((Turn("user", "in May"),))),
        msgspec.structs.replace(ASKED, conversation=Conversation((), Options(temperature=1.0))),
        *(
            msgspec.structs.replace(ASKED, collection=msgspec.structs.replace(COLLECTION, **change))
            for change in ({"tenant": "other"}, {"id": 2}, {"version": 6}, {"born": 1})
        ),
    ],
    ids=repr,
)
def test_whatever_may_change_the_answer_changes_the_key(other: Asked) -> None:
    """Tenant, collection, version, words, search, filter and conversation are in the key."""
    assert key(other) != key(ASKED)


def test_what_cannot_change_the_answer_does_not_change_the_key() -> None:
    """Spaces, an empty filter and an empty conversation make no other question."""
    request = SearchRequest(" when is\nlunch? ", filter={})
    other = msgspec.structs.replace(ASKED, request=request, conversation=Conversation())
    assert key(other) == key(ASKED)
    shouted = msgspec.structs.replace(ASKED, request=SearchRequest("WHEN IS LUNCH?"))
    assert key(shouted) != key(ASKED)
    assert key(shouted, fold_case=True) == key(ASKED, fold_case=True)


def test_searches_and_questions_have_keys_of_their_own() -> None:
    """The same words ask /v1/search for something else."""
    assert ASKED.key("search", RECIPE, fold_case=False) != key(ASKED)


@pytest.mark.parametrize(
    "setting",
    [
        {"llm__model": "other"},
        {"llm__base_url": "http://127.0.0.1:1/v1"},
        {"llm__temperature": 0.7},
        {"answer__sentences": 1},
        {"search__dense_weight": 0.5},
    ],
    ids=str,
)
def test_another_recipe_makes_other_answers(setting: dict[str, object]) -> None:
    """Workers of two configurations, as during a reload, share no answers; a key is no part."""
    assert recipe(configured(**setting), "hashing-384") != RECIPE
    assert recipe(configured(), "minilm") != RECIPE
    assert recipe(configured(llm__api_key="secret"), "hashing-384") == RECIPE
