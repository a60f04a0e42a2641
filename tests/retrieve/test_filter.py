"""Filters: what they accept, what they refuse by name, what they become."""

from __future__ import annotations

from typing import Any

import pytest

from ragserve.errors import InvalidRequest
from ragserve.retrieve.filter import MAX_CONDITIONS, MAX_VALUES, Condition, Filter, parse_filter


def _refusal(source: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as refused:
        parse_filter(source)
    return refused.value.message, refused.value.param


@pytest.mark.parametrize("source", [None, {}])
def test_no_filter_is_no_filter(source: dict[str, Any] | None) -> None:
    """Without conditions nothing is filtered."""
    assert parse_filter(source) is None


@pytest.mark.parametrize(
    ("condition", "values", "bounds"),
    [
        ("de", ("de",), ()),
        (False, (False,), ()),
        (["de", 1, True], ("de", 1, True), ()),
        ({"eq": 1.5}, (1.5,), ()),
        ({"$eq": 1.5}, (1.5,), ()),
        ({"in": ["a"]}, ("a",), ()),
        ({"in": "a"}, ("a",), ()),
        ({"gte": 1, "$lt": 2}, None, (("gte", 1), ("lt", 2))),
        ({"gt": "a", "in": ["b", "c"]}, ("b", "c"), (("gt", "a"),)),
    ],
)
def test_each_way_to_write_a_condition(
    condition: object, values: tuple[object, ...] | None, bounds: tuple[object, ...]
) -> None:
    """A value, a list, and operators with or without a dollar sign."""
    expected = Filter((Condition("name", values, bounds),))  # type: ignore[arg-type]
    assert parse_filter({"name": condition}) == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "filter.year: a string, number or boolean, not None"),
        ([], "filter.year: 1 to 1000 values, not 0"),
        ([1, [2]], "filter.year: a string, number or boolean, not [2]"),
        ([{"gt": 1}], "filter.year: a string, number or boolean, not {'gt': 1}"),
        ({}, "filter.year: an empty object is no condition"),
        ({"in": []}, "filter.year.in: 1 to 1000 values, not 0"),
        ({"eq": [1]}, "filter.year.eq: a string, number or boolean, not [1]"),
        ({"$gt": True}, "filter.year.$gt: a number or string, not True"),
        ({"lte": None}, "filter.year.lte: a number or string, not None"),
        ({"lte": [1]}, "filter.year.lte: a number or string, not [1]"),
        (
            {"ne": 1},
            "filter.year: operator 'ne' is not one of eq, in, gt, gte, lt, lte, once",
        ),
        (
            {"$$gt": 1},
            "filter.year: operator '$$gt' is not one of eq, in, gt, gte, lt, lte, once",
        ),
        (
            {"eq": 1, "in": [2]},
            "filter.year: operator 'in' is not one of eq, in, gt, gte, lt, lte, once",
        ),
    ],
)
def test_a_wrong_condition_is_named(condition: object, message: str) -> None:
    """A refusal names the condition, the operator and the value, and blames the condition."""
    refused, param = _refusal({"lang": "de", "year": condition})
    assert refused == message
    assert param is not None
    assert param.startswith("filter.year")


def test_a_filter_is_bounded() -> None:
    """As many conditions and values as the limits say, and not one more."""
    most = {f"name{n}": n for n in range(MAX_CONDITIONS)}
    assert len(parse_filter(most).conditions) == MAX_CONDITIONS  # type: ignore[union-attr]
    assert _refusal({**most, "one": 1}) == ("filter: at most 32 conditions, this has 33", "filter")
    parse_filter({"n": list(range(MAX_VALUES))})
    assert _refusal({"n": list(range(MAX_VALUES + 1))}) == (
        "filter.n: 1 to 1000 values, not 1001",
        "filter.n",
    )


@pytest.mark.parametrize(
    "source",
    [
        {"a": "x\0y"},
        {"a": ["x", "\0"]},
        {"a": {"eq": "\0"}},
        {"a": {"lt": "\0"}},
        {"a\0": "x"},
    ],
)
def test_what_postgresql_cannot_hold_is_refused(source: dict[str, Any]) -> None:
    """U+0000, which no stored metadata can hold, is the request's error, not the server's."""
    _, param = _refusal(source)
    assert param is not None
    assert param.startswith("filter")
