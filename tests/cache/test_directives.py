"""Cache-Control and Cache-Status: what clients may ask for, and what they are told."""

from __future__ import annotations

import pytest

from ragserve.cache.directives import ANY, Wishes, forwarded, hit, parse_wishes


@pytest.mark.parametrize(
    ("header", "wishes"),
    [
        ("", ANY),
        ("no-cache", Wishes(read=False)),
        ("No-Store", Wishes(read=False, store=False)),
        ("no-store, no-cache", Wishes(read=False, store=False)),
        ("only-if-cached", Wishes(only_cached=True)),
        (" max-age = 60 , only-if-cached", Wishes(only_cached=True, max_age_s=60)),
        ('max-age="0"', Wishes(max_age_s=0)),
        ("max-age", Wishes(max_age_s=0)),
        ("max-age=-1", Wishes(max_age_s=0)),
        ("max-age=" + "9" * 20, Wishes(max_age_s=2**31)),
        ("max-age=" + "9" * 5000, Wishes(max_age_s=0)),
        ("no-cachet, x-no-store, =, ;no-store, max-stale=5", ANY),
    ],
)
def test_directives_are_understood(header: str, wishes: Wishes) -> None:
    """Known directives count in any case and spacing; unknown and broken ones mean nothing."""
    assert parse_wishes(header) == wishes


def test_pragma_counts_where_there_is_nothing_else() -> None:
    """Old clients say Pragma: no-cache."""
    assert parse_wishes(None, "no-cache") == Wishes(read=False)
    assert parse_wishes("max-age=60", "no-cache") == Wishes(max_age_s=60)
    assert parse_wishes(None, "other") is ANY
    assert parse_wishes(None) is ANY


def test_the_status_says_where_an_answer_comes_from() -> None:
    """Hit and its tier, stale by how much, or why it was computed."""
    assert hit("memory", 12.0) == "ragserve; hit; detail=memory"
    assert hit("redis", -3.5) == "ragserve; hit; ttl=-4; detail=redis"
    assert forwarded(ANY) == "ragserve; fwd=miss"
    assert forwarded(Wishes(read=False)) == "ragserve; fwd=request"
    assert forwarded(Wishes(read=False, store=False)) == "ragserve; fwd=bypass"


def test_an_age_is_accepted_up_to_the_one_asked_for() -> None:
    """max-age bounds how old an answer may be."""
    assert ANY.accepts(1e9)
    assert Wishes(max_age_s=5).accepts(5.0)
    assert not Wishes(max_age_s=5).accepts(5.1)
