"""Prometheus itself scrapes a running server and answers every panel's query and every rule."""

from __future__ import annotations

import math
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.prometheus.files import queries, rules
from tests.prometheus.server import PROGRAM, prometheus
from tests.prometheus.traffic import busy_server, lock, use

SILENT = {
    "Computed anew behind readers A": "no kept answer becomes old within the test",
    "Connections closed A": "no client is slow or has too many",
    "Reads of the replica A": "there is no replica",
    "Readers cut off A": "all of them read",
    "Refused for a rate limit (429) A": "[rate] has no limits",
    "Second attempts beside slow ones A": "llm.hedge is off",
}
"""Panels and rules that have nothing to show of a server that does well, and why."""


@pytest.mark.nightly
@pytest.mark.skipif(PROGRAM is None, reason="no prometheus: apt-get install prometheus")
async def test_panels_and_rules_show_something(data_dir: Path, tmp_path: Path) -> None:
    """No query fails, none asks for what never comes: each has a number, or a reason for none."""
    async with (
        busy_server(data_dir, "--workers", "2") as server,
        prometheus(tmp_path, urlsplit(server.url).netloc) as asked,
    ):
        await use(server, 0)
        await asked.scraped(2)
        await use(server, 1)
        await lock(server, data_dir)
        # The ingest process looks for keys now and then.
        await asked.shown("ragserve_key_expiry_timestamp_seconds")
        await asked.scraped(2)
        evaluated = await asked.evaluated()
        assert len(evaluated) == len(rules("rules.yml")) + len(rules("alerts.yml"))
        assert {rule["name"]: rule["lastError"] for rule in evaluated if "lastError" in rule} == {}
        assert {rule["health"] for rule in evaluated} == {"ok"}

        expressions = queries(__rate_interval="5m") | {
            rule["record"]: rule["record"] for rule in rules("rules.yml")
        }
        silent = set()
        for place, expression in expressions.items():
            values = await asked.values(expression)
            if all(map(math.isnan, values)):
                silent.add(place)
    assert "\n".join(sorted(silent)) == "\n".join(sorted(SILENT))
