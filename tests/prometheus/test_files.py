"""Prometheus' own tool accepts the files, and alerts fire when they should and not otherwise."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.prometheus.files import PROMETHEUS, panels, queries, rules
from tests.prometheus.promql import parse

TESTS = [Path(__file__).with_name(name) for name in ("alerts.yml", "slow.yml")]
COMMAND = (
    r"\b(curl|journalctl|systemctl|ragserve (status|keys)|psql|df|ss|openssl|redis-cli|py-spy) "
    r"|pg_isready"
)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus"
)


def promtool(*arguments: str | Path) -> str:
    """Run promtool; return what it says if it is not content."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@needs_promtool
def test_the_configuration_is_valid() -> None:
    """prometheus.yml, and the rules that it names."""
    assert promtool("check", "config", PROMETHEUS / "prometheus.yml") == ""


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    """Series made for it raise each alert, and values just below its threshold do not."""
    assert promtool("test", "rules", *TESTS) == ""


def test_every_alert_is_tested() -> None:
    """There is a test in which it fires, and one with its metrics in which it does not."""
    recorded = {rule["record"]: metrics_of(rule["expr"]) for rule in rules("rules.yml")}
    fired: set[str] = set()
    quiet: set[str] = set()
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text("utf-8"))["tests"]]
    for test in tests:
        shown = {series["series"].partition("{")[0] for series in test["input_series"]}
        for case in test.get("promql_expr_test", ()):
            firing = {re.findall(r'"(\w+)"', one["labels"])[0] for one in case["exp_samples"]}
            fired |= firing
            for rule in rules("alerts.yml"):
                asked = metrics_of(rule["expr"])
                needed = asked.union(*(recorded.get(name, ()) for name in asked))
                if needed & shown:
                    quiet |= {rule["alert"]} - firing
    alerts = {rule["alert"] for rule in rules("alerts.yml")}
    assert alerts - fired == set()
    assert alerts - quiet == set()


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    return {selector.metric for selector in parse(expression).selectors}


def test_every_alert_says_what_to_do() -> None:
    """How bad it is, what it is, and a command that shows the cause."""
    for rule in rules("alerts.yml"):
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]
        assert re.search(COMMAND, rule["annotations"]["runbook"]), rule["alert"]


@needs_promtool
def test_every_query_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    """As rules they pass Prometheus' own parser."""
    checked = [
        {"record": f"panel:query:number{number}", "expr": query}
        for number, query in enumerate(queries().values())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": checked}]}))
    assert promtool("check", "rules", file) == ""


def test_panels_have_their_own_place() -> None:
    """No two panels overlap, none is wider than the screen, and titles are unique."""
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    assert len({panel["title"] for panel in panels()}) == len(panels())
