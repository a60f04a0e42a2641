"""The supervisor's log, line by line like the workers'.

structlog, which they use, brings asyncio and rich with it: as much memory again as the whole
supervisor needs.
"""

from __future__ import annotations

import datetime as dt
import sys
from typing import Literal

import msgspec

from ragserve.config import LogConfig

LEVELS = ("debug", "info", "warning", "error")
EVENT_WIDTH = 30


class Log:
    """Writes events with their fields to standard error, as JSON or for a person."""

    def __init__(self) -> None:
        self._json = True
        self._least = LEVELS.index("info")

    def configure(self, config: LogConfig) -> None:
        """Take the level and the format of ``config``."""
        self._json = config.format == "json" or (
            config.format == "auto" and not sys.stderr.isatty()
        )
        self._least = LEVELS.index(config.level)

    def info(self, event: str, **fields: object) -> None:
        """Log what an operator may want to know."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Log what an operator may have to look at."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Log what an operator has to look at."""
        self._write("error", event, fields)

    def _write(
        self,
        level: Literal["info", "warning", "error"],
        event: str,
        fields: dict[str, object],
    ) -> None:
        if LEVELS.index(level) < self._least:
            return
        now = dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
        if self._json:
            line = {**fields, "event": event, "level": level, "timestamp": now}
            sys.stderr.write(msgspec.json.encode(line).decode() + "\n")
        else:
            said = " ".join(f"{name}={value}" for name, value in fields.items())
            sys.stderr.write(f"{now} [{level:<9}] {event:<{EVENT_WIDTH}} {said}".rstrip() + "\n")
        sys.stderr.flush()


log = Log()
