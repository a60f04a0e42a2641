"""Exponential backoff with full jitter."""

from __future__ import annotations

import random


def backoff_s(attempt: int, *, base_s: float, cap_s: float, rng: random.Random) -> float:
    """Return how long to wait after failed try number ``attempt``, counted from 1.

    Full jitter: uniform between 0 and the exponential bound, so that clients which failed
    together do not come back together (Brooker, "Exponential Backoff And Jitter", 2015).
    """
    return rng.uniform(0.0, min(cap_s, base_s * 2.0 ** (attempt - 1)))
