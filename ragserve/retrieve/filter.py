"""Filters on metadata: one meaning, two languages.

``{"year": {"gte": 2020}, "lang": ["de", "en"], "draft": false}`` is a conjunction; each name is a
key of the document's metadata. A condition is a value (equality), a list (any of them), or an
object of ``eq``, ``in``, ``gt``, ``gte``, ``lt``, ``lte`` (a ``$`` before the name is allowed). A
metadata list matches if any of its values does. Numbers compare with numbers, strings with
strings by code point; a value of another kind, or none, does not match.

PostgreSQL gets a jsonpath predicate; the BM25 index gets sets of metadata terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ragserve.errors import InvalidRequest
from ragserve.index import CollectionIndex
from ragserve.index.layout import value_prefix, value_term

Scalar = bool | int | float | str

MAX_CONDITIONS = 32
MAX_VALUES = 1000
_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class Condition(msgspec.Struct, frozen=True):
    """``name`` has one of ``values`` if there are any, and lies within all ``bounds``."""

    name: str
    values: tuple[Scalar, ...] | None = None
    bounds: tuple[tuple[str, int | float | str], ...] = ()


class Filter(msgspec.Struct, frozen=True):
    """A conjunction of conditions."""

    conditions: tuple[Condition, ...]

    def jsonpath(self) -> str:
        """Return the predicate for PostgreSQL's ``@@``."""
        # strict: lax mode would unwrap lists within lists, too.
        return "strict " + " && ".join(_jsonpath(condition) for condition in self.conditions)

    def required_terms(self, index: CollectionIndex) -> list[list[str]]:
        """Return, for each condition, the metadata terms of which a passage needs one."""
        return [_terms(condition, index) for condition in self.conditions]


def parse_filter(source: Mapping[str, Any] | None) -> Filter | None:
    """Check a request's filter; raise ``InvalidRequest`` that names the condition at fault."""
    if not source:
        return None
    if len(source) > MAX_CONDITIONS:
        raise InvalidRequest(
            f"filter: at most {MAX_CONDITIONS} conditions, this has {len(source)}", param="filter"
        )
    return Filter(tuple(_condition(name, value) for name, value in source.items()))


def _condition(name: str, value: object) -> Condition:
    where = f"filter.{name}"
    if "\0" in name:
        raise InvalidRequest(f"{where}: NUL characters cannot be stored", param=where)
    if isinstance(value, list):
        return Condition(name, _values(value, where))
    if not isinstance(value, dict):
        return Condition(name, (_scalar(value, where),))
    values: tuple[Scalar, ...] | None = None
    bounds = []
    for operator, operand in value.items():
        bare = operator.removeprefix("$")
        if bare in _COMPARISONS:
            bounds.append((bare, _bound(operand, f"{where}.{operator}")))
        elif bare in ("eq", "in") and values is None:
            listed = operand if isinstance(operand, list) and bare == "in" else [operand]
            values = _values(listed, f"{where}.{operator}")
        else:
            known = "eq, in, " + ", ".join(_COMPARISONS)
            raise InvalidRequest(
                f"{where}: operator {operator!r} is not one of {known}, once", param=where
            )
    if values is None and not bounds:
        raise InvalidRequest(f"{where}: an empty object is no condition", param=where)
    return Condition(name, values, tuple(bounds))


def _values(values: list[object], where: str) -> tuple[Scalar, ...]:
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidRequest(f"{where}: 1 to {MAX_VALUES} values, not {len(values)}", param=where)
    return tuple(_scalar(value, where) for value in values)


def _scalar(value: object, where: str) -> Scalar:
    if not isinstance(value, bool | int | float | str):
        raise InvalidRequest(f"{where}: a string, number or boolean, not {value!r}", param=where)
    _refuse_nul(value, where)
    return value


def _bound(value: object, where: str) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidRequest(f"{where}: a number or string, not {value!r}", param=where)
    _refuse_nul(value, where)
    return value


def _refuse_nul(value: object, where: str) -> None:
    if isinstance(value, str) and "\0" in value:
        raise InvalidRequest(f"{where}: NUL characters cannot be stored", param=where)


def _jsonpath(condition: Condition) -> str:
    key = _json(condition.name)
    parts = []
    if condition.values is not None:
        parts.append(" || ".join(f"@ == {_json(value)}" for value in condition.values))
    parts += [f"@ {_COMPARISONS[name]} {_json(value)}" for name, value in condition.bounds]
    # One item of a list has to satisfy everything, hence one filter expression and not several.
    test = " && ".join(f"({part})" for part in parts)
    return f"(exists($.{key} ? ({test})) || exists($.{key}[*] ? ({test})))"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _terms(condition: Condition, index: CollectionIndex) -> list[str]:
    values = condition.values
    if values is None:
        (first, *_) = condition.bounds
        prefix = value_prefix(condition.name, first[1])
        candidates = index.terms_with_prefix(prefix)
    else:
        candidates = [value_term(condition.name, value) for value in values]
    for operator, bound in condition.bounds:
        prefix = value_prefix(condition.name, bound)
        compare, limit = _COMPARE[operator], value_term(condition.name, bound)
        candidates = [
            term for term in candidates if term.startswith(prefix) and compare(term, limit)
        ]
    return candidates


_COMPARE: dict[str, Callable[[str, str], bool]] = {
    "gt": str.__gt__,
    "gte": str.__ge__,
    "lt": str.__lt__,
    "lte": str.__le__,
}
