"""What a PromQL expression asks for: metrics and labels. Its grammar is promtool's to check.

A tokenizer is enough: outside of strings a metric is a name that is neither called, nor a keyword,
nor in a list of labels. Lists follow ``by``, ``without``, ``on``, ``ignoring``, ``group_left`` and
``group_right``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<range>\[[^\]]*\])
    |(?P<duration>\d+(?:ms|[smhdwy])\b)
    |(?P<number>0x[0-9a-fA-F]+|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
    |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<match>=~|!~|!=|==|=)
    |(?P<other>\S)
    """,
    re.VERBOSE,
)
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "offset", "bool", "inf", "nan", "start", "end"})


class Matcher(NamedTuple):
    """What a label has to be: ``op`` is one of ``=``, ``!=``, ``=~``, ``!~``."""

    label: str
    op: str
    value: str


class Selector(NamedTuple):
    """A metric as an expression asks for it."""

    metric: str
    matchers: tuple[Matcher, ...]


class Asked(NamedTuple):
    """All metrics of an expression, and the labels that it groups or joins by."""

    selectors: tuple[Selector, ...]
    labels: frozenset[str]


def parse(expression: str) -> Asked:
    """Return what ``expression`` asks for; raise ``ValueError`` for a selector without a name."""
    tokens = [(m.lastgroup or "", m[0]) for m in _TOKEN.finditer(_without_comments(expression))]
    selectors: list[Selector] = []
    labels: set[str] = set()
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind == "name" and text.lower() in _LISTS:
            if after == "(":
                end = at + [token for _, token in tokens[at:]].index(")")
                labels |= {token for kind_, token in tokens[at:end] if kind_ == "name"}
                at = end + 1
        elif (
            kind == "name"
            and text.lower() not in _WORDS
            and after != "("
            and not _calls(tokens, at)
        ):
            matchers: tuple[Matcher, ...] = ()
            if after == "{":
                end = at + [token for _, token in tokens[at:]].index("}")
                matchers = _matchers(tokens[at + 1 : end])
                at = end + 1
            selectors.append(Selector(text, matchers))
        elif text == "{":
            raise ValueError(f"a selector without a metric's name: {expression}")
    return Asked(tuple(selectors), frozenset(labels))


def _calls(tokens: list[tuple[str, str]], at: int) -> bool:
    """Return whether the name before ``at`` is an aggregation: ``sum by (a) (…)``."""
    return at < len(tokens) and tokens[at][1].lower() in ("by", "without")


def _matchers(tokens: list[tuple[str, str]]) -> tuple[Matcher, ...]:
    found = [text for _, text in tokens if text != ","]
    return tuple(
        Matcher(label, op, value[1:-1])
        for label, op, value in zip(found[::3], found[1::3], found[2::3], strict=True)
    )


def _without_comments(expression: str) -> str:
    """No string of ours has a number sign."""
    return re.sub(r"#.*", "", expression)
