"""The log of workers and commands."""

from __future__ import annotations

import json
import subprocess
import sys

SAYS = """
import logging
from ragserve.config import LogConfig
from ragserve.log import configure_logging
configure_logging(LogConfig(format="json"))
logging.getLogger("asyncpg.pool").warning("cannot connect")
logging.getLogger("asyncpg.pool").error("cannot go on")
logging.getLogger("aiohttp.server").warning("odd")
"""


def test_a_lost_database_is_told_in_a_line() -> None:
    """What libraries say is in the log, but not each connection that asyncpg's pool lost."""
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, check=True)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(event["level"], event["event"]) for event in events] == [
        ("error", "cannot go on"),
        ("warning", "odd"),
    ]
