"""Cache tiers: what was computed once is not computed again."""

from ragserve.cache.local import LocalCache

__all__ = ["LocalCache"]
