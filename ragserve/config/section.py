"""What sections of the configuration are made of."""

from __future__ import annotations

import msgspec
from msgspec import Meta


def doc(
    text: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
) -> Meta:
    """Return a setting's explanation and bounds."""
    if gt is not None:
        return Meta(description=text, gt=gt, le=le)
    return Meta(description=text, ge=ge, le=le)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One table of the configuration file."""
