"""Panels, rules and alerts ask for what a running server exports, and for all of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from ragserve import metrics
from tests.prometheus.files import CONF, queries, rules
from tests.prometheus.promql import Asked, parse
from tests.prometheus.traffic import busy_server, lock, use

FOREIGN = {
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate"},
    "probe_success": {"job", "instance"},
    "probe_ssl_earliest_cert_expiry": {"job", "instance"},
}
"""What Prometheus itself and the blackbox exporter have, not the server."""
SCRAPED = {"job", "instance"}
"""Labels that Prometheus gives every series."""
UNUSED = {
    "python_gc_objects_collected": "for whoever tunes the garbage collector",
    "python_gc_objects_uncollectable": "for whoever tunes the garbage collector",
    "python_gc_collections": "for whoever tunes the garbage collector",
    "python_info": "the interpreter, which ragserve_build_info's version comes with",
    "process_virtual_memory_bytes": "address space, of which mapped indexes take what they like",
    "process_resident_memory_bytes": "ragserve_worker_resident_memory_bytes, which /health has too",
    "process_start_time_seconds": "ragserve_worker_start_time_seconds, which is after the warm-up",
}
"""Families without a panel or a rule, and why."""


def expressions() -> dict[str, str]:
    """Return all expressions by where they stand."""
    found = dict(queries())
    for name in ("rules.yml", "alerts.yml"):
        for rule in rules(name):
            found[rule.get("record") or rule["alert"]] = rule["expr"]
    return found


def declared() -> dict[str, set[str]]:
    """Return the labels of all of the server's metrics, by the names of their samples."""
    found = {}
    for value in vars(metrics).values():
        metric = getattr(value, "_histogram", value)
        if isinstance(metric, MetricWrapperBase):
            name, labels = metric._name, set(metric._labelnames)
            if metric._type == "histogram":
                found |= {f"{name}_{part}": labels for part in ("count", "sum")}
                found[f"{name}_bucket"] = labels | {"le"}
            elif metric._type == "counter":
                found[f"{name}_total"] = labels
            else:
                found[name] = labels | {"worker"}
    return found


class Exported:
    """What a server shows: ``labels`` by sample, ``families`` by name."""

    def __init__(self, text: str) -> None:
        self.labels: dict[str, set[str]] = {}
        self.values: dict[tuple[str, str], set[str]] = {}
        self.families: dict[str, str] = {}
        for family in text_string_to_metric_families(text):
            self.families[family.name] = family.type
            for sample in family.samples:
                self.labels.setdefault(sample.name, set()).update(sample.labels)
                for label, value in sample.labels.items():
                    self.values.setdefault((sample.name, label), set()).add(value)


@pytest.fixture(scope="module")
def asked() -> dict[str, Asked]:
    """What each expression asks for."""
    return {place: parse(expression) for place, expression in expressions().items()}


def family_of(sample: str, families: Mapping[str, str]) -> str | None:
    """Return the family that a sample belongs to."""
    for name, kind in families.items():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        if sample in [name + suffix for suffix in suffixes.get(kind, ("",))]:
            return name
    return None


async def test_what_is_asked_for_is_there(data_dir: Path, asked: dict[str, Asked]) -> None:
    """Every metric by its name and labels; every metric that the server has, somewhere."""
    async with busy_server(data_dir, "--workers", "1") as server:
        await use(server, 0)
        await lock(server, data_dir)
        async with server.session.get(server.url + "/metrics") as response:
            exported = Exported(await response.text())
    recorded = {rule["record"]: set(asked[rule["record"]].labels) for rule in rules("rules.yml")}
    known = declared()
    used: set[str] = set()
    for place, (selectors, labels) in asked.items():
        allowed = set(SCRAPED)
        for selector in selectors:
            name = selector.metric
            if name in FOREIGN:
                own = FOREIGN[name]
            elif name in recorded:
                own = recorded[name]
            else:
                family = family_of(name, exported.families)
                assert family is not None, f"{place}: the server does not export {name}"
                used.add(family)
                own = exported.labels[name] if name in exported.labels else known[name]
            wanted = {matcher.label for matcher in selector.matchers}
            assert wanted <= own | SCRAPED, f"{place}: {name} has no {wanted - own - SCRAPED}"
            allowed |= own
        assert labels <= allowed, f"{place}: no metric of it has {set(labels) - allowed}"
    assert set(exported.families) - used == set(UNUSED)
    # What is declared is what is exported: else a label checked above would be checked in vain.
    for name, labels in known.items():
        assert exported.labels.get(name, labels) == labels, name


def test_what_operators_look_for_is_there() -> None:
    """What the troubleshooting of conf/README.md and the runbooks grep for are samples' names."""
    runbooks = " ".join(rule["annotations"]["runbook"] for rule in rules("alerts.yml"))
    readme = (CONF / "README.md").read_text(encoding="utf-8").replace("\\|", "|")
    grepped = r"/metrics\s\|\sgrep\s(?:-E\s)?(?:'([^']+)'|(\w+))"
    found = {
        re.split(r"[(.]", word)[0]
        for quoted, plain in re.findall(grepped, readme + runbooks)
        for word in re.split(r"\|(?![^(]*\))", quoted or plain)
    }
    assert len(found) > 15
    assert {word for word in found if not any(word in name for name in declared())} == set()


def test_values_that_are_asked_for_exist(asked: dict[str, Asked]) -> None:
    """A label's value in a query is one that some module of the server writes."""
    source = "".join(
        file.read_text(encoding="utf-8") for file in Path(metrics.__file__).parent.rglob("*.py")
    )
    for place, (selectors, _) in asked.items():
        for selector in selectors:
            for label, op, value in selector.matchers:
                if op == "=" and label not in SCRAPED and selector.metric not in FOREIGN:
                    assert f'"{value}"' in source or value.startswith("/"), f"{place}: {value}"
