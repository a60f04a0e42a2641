"""The supervisor's own log: lines like structlog's, JSON or readable, by level."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from ragserve.config import LogConfig
from ragserve.supervisor.log import Log

HEAVY = {"asyncio", "structlog", "rich", "aiohttp", "asyncpg", "numpy", "openvino", "tantivy"}


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with the keys that all processes' lines have."""
    log = Log()
    log.configure(LogConfig(format="json", level="warning"))
    log.info("left_out")
    log.error("child_died", pid=7, error="ü")
    line = json.loads(capsys.readouterr().err)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {"event": "child_died", "level": "error", "pid": 7, "error": "ü"}


def test_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, event, fields."""
    log = Log()
    log.configure(LogConfig(format="console"))
    log.warning("worker_added", workers=3)
    time, rest = capsys.readouterr().err.split(" ", 1)
    assert time.endswith("Z")
    assert rest == "[warning  ] worker_added                   workers=3\n"


def test_what_the_supervisor_imports() -> None:
    """Nothing that costs more memory than itself."""
    code = "import sys, ragserve.cli.main, ragserve.cli.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()
