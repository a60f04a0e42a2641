"""The tokenizer finds what an expression asks for, and nothing else."""

from __future__ import annotations

import pytest

from tests.prometheus.promql import Asked, Matcher, Selector, parse


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("up", Asked((Selector("up", ()),), frozenset())),
        (
            'sum by (job, le) (rate(a_bucket{x=~"b{2}|\\"by", y!="1"}[5m])) * 1e-3 > 2 # c',
            Asked(
                (
                    Selector(
                        "a_bucket", (Matcher("x", "=~", 'b{2}|\\"by'), Matcher("y", "!=", "1"))
                    ),
                ),
                frozenset({"job", "le"}),
            ),
        ),
        (
            "histogram_quantile(0.9, sum(rate(a:b{}[1h:5m])) by (le)) or vector(0)",
            Asked((Selector("a:b", ()),), frozenset({"le"})),
        ),
        (
            "a / on (i) group_left (v) b unless c offset 1d == bool 1 and time() - d < +Inf",
            Asked(
                tuple(Selector(name, ()) for name in "abcd"),
                frozenset({"i", "v"}),
            ),
        ),
    ],
)
def test_what_an_expression_asks_for(expression: str, asked: Asked) -> None:
    """Names and matchers in their order; labels of lists; no functions, words or strings."""
    assert parse(expression) == asked


def test_a_selector_has_a_name() -> None:
    """What could be any metric cannot be checked."""
    with pytest.raises(ValueError, match="without a metric's name"):
        parse('{job="ragserve"}')
