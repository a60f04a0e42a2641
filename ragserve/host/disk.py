"""The space that is left for data on this host."""

from __future__ import annotations

import os
from pathlib import Path

from ragserve.metrics import DATA_FREE, DATA_SIZE


def show_space(directory: Path) -> None:
    """Have the metrics say, whenever they are read, what ``directory`` has to itself."""

    def free() -> float:
        found = os.statvfs(directory)
        return found.f_bavail * found.f_frsize

    def size() -> float:
        found = os.statvfs(directory)
        return found.f_blocks * found.f_frsize

    DATA_FREE.labels("data").set_function(free)
    DATA_SIZE.labels("data").set_function(size)
