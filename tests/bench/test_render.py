"""Tables from results."""

from __future__ import annotations

from bench.render import table
from bench.results import summary

RUN = {
    "requests_per_s": 1000.0,
    "errors": 1,
    "requests": 1000,
    "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 9.0},
    "cpu_us": 50.0,
    "memory_mb": 80.0,
}


def test_medians_and_sums() -> None:
    """Rates are medians of the runs, errors are added up."""
    runs = [RUN, {**RUN, "requests_per_s": 10.0}, {**RUN, "requests_per_s": 1100.0}]
    made = summary(runs)
    assert (made["requests_per_s"], made["errors"], made["runs"]) == (1000.0, 3, 3)


def test_what_was_not_run_is_in_the_table() -> None:
    """A missing peer has its line and its reason."""
    half = {**RUN, "requests_per_s": 500.0}
    result = {
        "scenario": "cached",
        "about": "x",
        "load": {"users": 64},
        "contenders": {"ragserve": summary([RUN]), "other": summary([half])},
        "not_run": {"Gin": "go is not installed"},
    }
    lines = table(result).splitlines()
    assert "| other | 500 | 0.50 | 0.1% | 1.00 | 2.00 | 3.00 | 50 | 80 |" in lines
    assert "| Gin | not run: go is not installed | | | | | | | |" in lines
