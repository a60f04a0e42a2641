"""Keys: the same question has one, and anything that may change its answer changes it."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.cache.key import KEY_BYTES, Scope, normalised, question_key, recipe_of

SCOPE = Scope("query", "acme", 7, 1_700_000_000, 3, 6, "hybrid", None, None, b"recipe")

scalars = st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5)
filters = st.none() | st.dictionaries(
    st.text(max_size=5),
    scalars
    | st.lists(scalars, max_size=3)
    | st.dictionaries(st.sampled_from(["gt", "lt"]), scalars),
    max_size=4,
)
scopes = st.builds(
    Scope,
    kind=st.sampled_from(["query", "search"]),
    tenant=st.text(max_size=8),
    collection=st.integers(0, 2**40),
    born=st.integers(0, 2**53),
    version=st.integers(0, 2**40),
    top_k=st.integers(1, 1000),
    mode=st.sampled_from(["hybrid", "dense", "lexical"]),
    filter=filters,
    surroundings=st.none() | st.lists(st.text(max_size=5), max_size=3),
    recipe=st.binary(max_size=8),
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("When is lunch?", "  When\tis \n lunch?  "),
        ("ﬁle № 5", "file No 5"),
        ("Café", "Cafe\u0301"),
        ("\uff21\uff22\u3000\uff11", "AB 1"),
    ],
)
def test_spelling_of_the_same_characters_does_not_matter(one: str, other: str) -> None:
    """White space and compatible characters make no difference."""
    assert normalised(one, fold_case=False) == normalised(other, fold_case=False)


def test_case_matters_unless_it_is_folded() -> None:
    """Case is a setting; folding knows more than ASCII."""
    assert normalised("US tax", fold_case=False) != normalised("us tax", fold_case=False)
    assert normalised("STRASSE", fold_case=True) == normalised("Straße", fold_case=True)


@given(st.text(), st.booleans())
def test_normalising_twice_changes_nothing(text: str, fold_case: bool) -> None:
    """A normalised question is its own normal form."""
    once = normalised(text, fold_case=fold_case)
    assert normalised(once, fold_case=fold_case) == once
    assert once == once.strip()


@given(st.text(), st.booleans())
def test_equivalent_texts_are_one(text: str, fold_case: bool) -> None:
    """All of Unicode's normal forms of a text lead to the same question."""
    forms = {
        normalised(unicodedata.normalize(form, text), fold_case=fold_case)
        for form in ("NFC", "NFD", "NFKC", "NFKD")
    }
    assert forms == {normalised(text, fold_case=fold_case)}


def canonical(scope: Scope) -> str:
    """Return a text that is equal for equal scopes only; 1 is not True here."""

    def typed(value: Any) -> Any:
        if isinstance(value, dict):
            return sorted((name, typed(item)) for name, item in value.items())
        if isinstance(value, list | tuple):
            return [typed(item) for item in value]
        return (type(value).__name__, value)

    return repr(typed(msgspec.structs.astuple(scope)))


@given(scopes, scopes)
def test_different_scopes_have_different_partitions(one: Scope, other: Scope) -> None:
    """Two scopes share a partition if and only if everything in them is equal."""
    assert (one.partition() == other.partition()) == (canonical(one) == canonical(other))
    assert len(one.partition()) == KEY_BYTES


@given(scopes, st.sampled_from(Scope.__struct_fields__), scopes)
def test_every_field_counts(scope: Scope, field: str, other: Scope) -> None:
    """Changing any one field changes the partition."""
    changed = msgspec.structs.replace(scope, **{field: getattr(other, field)})
    assert (changed.partition() == scope.partition()) == (canonical(changed) == canonical(scope))


@given(scopes, scopes, st.text(), st.text())
def test_questions_are_told_apart_within_a_scope_only(
    one: Scope, other: Scope, asked: str, else_asked: str
) -> None:
    """A key is that of one question in one scope."""
    keys = {
        (canonical(scope), text): question_key(scope.partition(), text)
        for scope in (one, other)
        for text in (asked, else_asked)
    }
    assert len(set(keys.values())) == len(keys)


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_a_filter_does_not_matter(names: list[str]) -> None:
    """A filter is a conjunction: its conditions have no order."""
    scope = msgspec.structs.replace(SCOPE, filter={name: {"lt": 2, "gt": 1} for name in names})
    turned = msgspec.structs.replace(
        SCOPE, filter={name: {"gt": 1, "lt": 2} for name in reversed(names)}
    )
    assert scope.partition() == turned.partition()


def test_keys_are_the_same_in_every_process() -> None:
    """Nothing of a process, such as its seed of hashes, is in a key."""
    code = (
        "from tests.cache.test_key import SCOPE; from ragserve.cache.key import *;"
        "print(question_key(SCOPE.partition(), 'lunch').hex(), recipe_of({'b': 1, 'a': 2}).hex())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    ours = (question_key(SCOPE.partition(), "lunch"), recipe_of({"a": 2, "b": 1}))
    assert found.stdout.split() == [key.hex() for key in ours]
