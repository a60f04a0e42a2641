"""The files of conf/ that Prometheus and Grafana read, and the expressions in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parent.parent.parent / "conf"
PROMETHEUS = CONF / "prometheus"
DASHBOARD = CONF / "grafana" / "ragserve.json"
VARIABLES = {"$job": "ragserve", "$instance": ".*", "$__rate_interval": "1m"}
"""What Grafana puts in place of its variables."""


def rules(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file."""
    groups = yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels without its rows."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(**variables: str) -> dict[str, str]:
    """Return every query of the dashboard by panel and letter, its variables filled in."""
    values = VARIABLES | {f"${name}": value for name, value in variables.items()}
    return {
        f"{panel['title']} {target['refId']}": filled(target["expr"], values)
        for panel in panels()
        for target in panel["targets"]
    }


def filled(expression: str, values: dict[str, str]) -> str:
    """Return an expression without variables; an unknown one is an error."""
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, expression
    return expression
