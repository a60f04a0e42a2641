"""What a filter means, written once more, slowly and plainly; and metadata to try it on."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

OPERATORS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def matches(metadata: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Return whether each condition holds for one value of its name."""
    for name, condition in conditions.items():
        value = metadata.get(name)
        items = value if isinstance(value, list) else [value]
        if not any(_satisfies(item, condition) for item in items):
            return False
    return True


def _satisfies(item: Any, condition: Any) -> bool:
    if isinstance(condition, list):
        return any(_satisfies(item, value) for value in condition)
    if not isinstance(condition, dict):
        return _kind(item) == _kind(condition) and item == condition
    for name, operand in condition.items():
        bare = name.removeprefix("$")
        if bare in OPERATORS:
            if _kind(item) != _kind(operand) or not OPERATORS[bare](item, operand):
                return False
        elif not _satisfies(item, operand):
            return False
    return True


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "none"


# A small world, so that values meet; the letters are those that some syntax might trip over.
_letters = st.sampled_from("aAbz01\"'\\/$.@*[]{}()%_? \n\t\x01\x7féß東😀\ufffd\ue000")
_names = st.one_of(st.sampled_from(["a", "b", ""]), st.text(_letters, max_size=2))
_numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(-(2**53), 2**53),  # what a double holds exactly
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 0.5, 1e-7, 1e16, 5e-324, 1.7e308]),
)
_strings = st.one_of(st.sampled_from(["a", "1", "true", ""]), st.text(_letters, max_size=4))
_bounds = st.one_of(_numbers, _strings)
_scalars = st.one_of(st.booleans(), _bounds)

metadata = st.dictionaries(
    _names,
    st.one_of(
        _scalars,
        st.lists(st.one_of(_scalars, st.none()), max_size=3),
        st.none(),
        st.dictionaries(_names, _scalars, max_size=1),
    ),
    max_size=3,
)

_operators = st.fixed_dictionaries(
    {},
    optional={
        "in": st.lists(_scalars, min_size=1, max_size=3),
        "$gt": _bounds,
        "gte": _bounds,
        "lt": _bounds,
        "$lte": _bounds,
    },
).filter(bool)
_conditions = st.one_of(
    _scalars,
    st.lists(_scalars, min_size=1, max_size=3),
    st.builds(lambda value: {"eq": value}, _scalars),
    _operators,
)
filters = st.dictionaries(_names, _conditions, min_size=1, max_size=2)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return some metadata and some filters, part of which are made from that metadata."""
    documents = draw(st.lists(metadata, min_size=1, max_size=6))
    asked = draw(st.lists(filters, min_size=1, max_size=3))
    for document in documents:
        for name, value in document.items():
            item = draw(st.sampled_from(value)) if isinstance(value, list) and value else value
            if _kind(item) != "none":
                asked.append({name: item})
            if _kind(item) in ("number", "string"):
                asked.append({name: {draw(st.sampled_from(sorted(OPERATORS))): item}})
    return documents, asked
