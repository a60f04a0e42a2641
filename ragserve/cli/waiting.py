"""A person at a terminal hears what takes time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from ragserve.config import Config
from ragserve.store.embedded import database_dsn

PATIENCE_S = 1.0


@contextmanager
def telling(
    what: str, terminal: TextIO | None = None, patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Say on the terminal, standard error by default, what takes longer than ``patience_s``."""
    out = sys.stderr if terminal is None else terminal
    timer = threading.Timer(patience_s, print, [f"{what} …"], {"file": out, "flush": True})
    if out.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def database_here(config: Config, data_dir: Path) -> Iterator[str]:
    """Yield the DSN of the configured database, or of the embedded one while the context lasts."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with telling("starting the database"):
            dsn = stack.enter_context(database_dsn(config.database.dsn, data_dir))
        yield dsn
