"""How much of a file has been written or read: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

from types import TracebackType

import rich.progress
from rich.console import Console


class Transfer:
    """Counts bytes; a context manager around the work. Without a total the bar has no end."""

    def __init__(self, name: str, total_bytes: int | None = None) -> None:
        console = Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn(name),
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TransferSpeedColumn(),
            rich.progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total_bytes)

    def note(self, size: int) -> None:
        """Count ``size`` bytes more."""
        self._bar.advance(self._task, size)

    def __enter__(self) -> Transfer:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
