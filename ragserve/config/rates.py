"""Limits by key, tenant and address: three sections of one shape."""

from __future__ import annotations

from typing import Annotated

from ragserve.config.section import Section
from ragserve.config.section import doc as _doc

MOST_PER_MINUTE = 60_000_000
"""One a microsecond: what buckets count in."""


class RateConfig(Section, frozen=True, forbid_unknown_fields=True):
    """Requests (and tokens) a minute by key, or by address without one; 0: any number."""

    query_per_minute: Annotated[
        int, _doc("/v1/query and /v1/chat/completions.", ge=0, le=MOST_PER_MINUTE)
    ] = 0
    search_per_minute: Annotated[
        int, _doc("/v1/search, /v1/embeddings, and what only reads.", ge=0, le=MOST_PER_MINUTE)
    ] = 0
    ingest_per_minute: Annotated[
        int, _doc("What writes documents and collections.", ge=0, le=MOST_PER_MINUTE)
    ] = 0
    admin_per_minute: Annotated[int, _doc("Keys and caches.", ge=0, le=MOST_PER_MINUTE)] = 0
    tokens_per_minute: Annotated[
        int,
        _doc("Tokens of the language model, of prompts and answers.", ge=0, le=MOST_PER_MINUTE),
    ] = 0

    @property
    def classes(self) -> dict[str, int]:
        """Return the limit of each class of routes."""
        return {
            "query": self.query_per_minute,
            "search": self.search_per_minute,
            "ingest": self.ingest_per_minute,
            "admin": self.admin_per_minute,
        }


class TenantRateConfig(RateConfig, frozen=True, forbid_unknown_fields=True):
    """Requests a minute of all keys of a tenant together; 0: any number."""


class AddressRateConfig(RateConfig, frozen=True, forbid_unknown_fields=True):
    """Requests a minute from one address, whatever its keys; 0: any number."""
