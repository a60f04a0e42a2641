"""Cache tiers: what was computed once is not computed again."""

from ragserve.cache.answers import Answers, Entry
from ragserve.cache.directives import Wishes, parse_wishes
from ragserve.cache.local import LocalCache

__all__ = ["Answers", "Entry", "LocalCache", "Wishes", "parse_wishes"]
