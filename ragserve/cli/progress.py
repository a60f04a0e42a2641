"""How far an ingest is: a bar on a terminal, silence elsewhere, a summary at the end."""

from __future__ import annotations

import time
from types import TracebackType

import rich.progress
from rich.console import Console


class Progress:
    """Counts documents as they come in; a context manager around the work."""

    def __init__(self, total: int) -> None:
        self.stored = 0
        self.unchanged = 0
        self.failures: list[tuple[str, str]] = []
        self._started_at = time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("ingesting"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[rate]}"),
            rich.progress.TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, rate="")

    @property
    def finished(self) -> int:
        """How many documents need nothing more."""
        return self.stored + self.unchanged + len(self.failures)

    def stored_one(self) -> None:
        """Count a document that is stored."""
        self.stored += 1
        self._advance()

    def unchanged_one(self) -> None:
        """Count a document that was there already."""
        self.unchanged += 1
        self._advance()

    def failed_one(self, name: str, reason: str) -> None:
        """Note a document that cannot be taken in, and why."""
        self.failures.append((name, reason))
        self._advance()

    def summary(self) -> str:
        """Return one line about what happened."""
        seconds = time.monotonic() - self._started_at
        return (
            f"{self.stored} documents ingested, {self.unchanged} unchanged, "
            f"{len(self.failures)} failed, in {seconds:.1f} s"
        )

    def _advance(self) -> None:
        rate = self.finished / max(1e-3, time.monotonic() - self._started_at)
        self._bar.update(self._task, completed=self.finished, rate=f"{rate:.1f}/s")

    def __enter__(self) -> Progress:
        self._started_at = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()
