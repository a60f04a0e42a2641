"""Who runs where: servers get the lower half of this process's cores, generators the upper."""

from __future__ import annotations

import os

AVAILABLE = sorted(os.sched_getaffinity(0))
SERVERS = set(AVAILABLE[: max(1, len(AVAILABLE) // 2)])
GENERATORS = set(AVAILABLE[len(AVAILABLE) // 2 :])


def generate() -> None:
    """Move this process, before it executes a generator, to the generators' cores."""
    os.sched_setaffinity(0, GENERATORS)
