"""Terms that sort as their values do, so that ranges are ranges of terms."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ragserve.index.layout import index_directory, metadata_terms, value_prefix, value_term

numbers = st.one_of(
    st.floats(allow_nan=False),
    st.integers(-(2**53), 2**53),
    st.sampled_from([0, 0.0, -0.0, 1, -1, 5e-324, -5e-324, math.inf, -math.inf]),
)
# Without surrogates, which JSON in UTF-8 cannot hold either.
strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(a=numbers, b=numbers)
def test_terms_of_numbers_sort_as_numbers(a: float, b: float) -> None:
    """Terms of numbers compare as the numbers do, whatever their sign, size or type."""
    term, other = value_term("year", a), value_term("year", b)
    assert (term < other, term == other) == (a < b, a == b)


@given(value=st.integers(min_value=2**53))
def test_large_integers_have_terms(value: int) -> None:
    """An integer of any size has a term, sorted with its neighbours to a double's precision."""
    assert value_term("n", 2**53) <= value_term("n", value) <= value_term("n", math.inf)
    assert value_term("n", -math.inf) <= value_term("n", -value) <= value_term("n", -(2**53))


def test_integers_beyond_doubles_are_infinite() -> None:
    """An integer no double can hold sorts at the end."""
    assert value_term("n", 10**400) == value_term("n", math.inf)
    assert value_term("n", -(10**400)) == value_term("n", -math.inf)


@given(a=strings, b=strings)
def test_terms_of_strings_sort_by_code_point(a: str, b: str) -> None:
    """Terms of strings compare as the strings do."""
    term, other = value_term("name", a), value_term("name", b)
    assert (term < other, term == other) == (a < b, a == b)


@given(a=st.text("aé", min_size=250, max_size=600), b=st.text("aé", min_size=250, max_size=600))
def test_long_strings_stay_distinct(a: str, b: str) -> None:
    """Strings too long for a term are still equal only to themselves, in short terms."""
    assert (value_term("s", a) == value_term("s", b)) == (a == b)
    assert len(value_term("s", a).encode()) < 300


@pytest.mark.parametrize("pair", [(1, True), (0, False), ("1", 1), ("true", True), ("", False)])
def test_kinds_are_not_confused(pair: tuple[bool | float | str, bool | float | str]) -> None:
    """A number, its digits and a boolean are three things, and so are their prefixes."""
    one, other = pair
    assert value_term("a", one) != value_term("a", other)
    assert value_prefix("a", one) != value_prefix("a", other)


def test_scalars_of_an_object_become_terms() -> None:
    """Values and the values of lists are terms; null and nested objects are not."""
    metadata = b'{"lang": ["de", 1, true], "draft": false, "none": null, "deep": {"x": 1}}'
    assert metadata_terms(metadata) == [
        value_term("lang", "de"),
        value_term("lang", 1),
        value_term("lang", True),
        value_term("draft", False),
    ]


@example(name="a\x1fs", value=True, other_name="a", other_value="\x1fb1")
@given(
    name=st.text("a\x1fbns1", max_size=3),
    value=st.one_of(st.text("a\x1fbns1", max_size=4), st.booleans()),
    other_name=st.text("a\x1fbns1", max_size=3),
    other_value=st.one_of(st.text("a\x1fbns1", max_size=4), st.booleans()),
)
def test_no_two_facts_share_a_term(
    name: str, value: str | bool, other_name: str, other_value: str | bool
) -> None:
    """Terms are equal for equal names and equal values only, even with control characters."""
    same = (name, type(value), value) == (other_name, type(other_value), other_value)
    assert (value_term(name, value) == value_term(other_name, other_value)) == same


def test_metadata_that_is_no_object_is_an_error() -> None:
    """Metadata other than an object is refused, not ignored."""
    with pytest.raises(msgspec.ValidationError):
        metadata_terms(b"[1]")


def test_each_collection_has_a_directory() -> None:
    """A collection's index is found by its number, whatever its name."""
    assert index_directory(Path("/data"), 7) == Path("/data/index/7")
