"""The few figures that a newcomer asks for, each beside its peers: a table for the README."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

Results = dict[str, dict[str, Any]]
Figure = Callable[[dict[str, Any]], str]


def rate(figures: dict[str, Any]) -> str:
    """Return requests per second."""
    return f"{figures['requests_per_s']:,.0f}"


def p95(figures: dict[str, Any]) -> str:
    """Return what 95 of 100 wait at most."""
    return f"{figures['latency_ms']['p95']:.2f} ms"


def cpu(figures: dict[str, Any]) -> str:
    """Return processor time."""
    return f"{figures['cpu_us']:.1f} µs"


def memory(figures: dict[str, Any]) -> str:
    """Return the memory of a connection."""
    return f"{figures['kb_each']:.1f} KB"


ROWS: tuple[tuple[str, str, Figure, str, tuple[str, ...]], ...] = (
    ("Known questions a second, one core", "cached", rate, "ragserve", ("Gin", "FastAPI")),
    ("… over 1,000 connections", "cached-1000", rate, "ragserve", ("Gin", "FastAPI")),
    (
        "1,000 people ask known questions: 95 % wait at most",
        "users-1000",
        p95,
        "ragserve",
        ("Gin", "FastAPI"),
    ),
    (
        "A token of a streamed answer with citations, 500 readers: processor time",
        "streams-500",
        cpu,
        "ragserve, answers from documents",
        ("Go ReverseProxy",),
    ),
    (
        "… passed through",
        "streams-500",
        cpu,
        "ragserve, passed through",
        ("Go ReverseProxy",),
    ),
    (
        "… passed through, 50 readers",
        "streams-50",
        cpu,
        "ragserve, passed through",
        ("Go ReverseProxy", "LiteLLM"),
    ),
    ("An idle connection, of 10,000", "connections", memory, "ragserve", ("Gin", "FastAPI")),
)
"""What is told, the result it is from, the figure, who we are there, and whom we stand beside."""


def table(results: Results) -> str:
    """Return the rows there are results for."""
    lines = ["| | ragserve | beside it |", "|---|---:|---|"]
    for label, name, figure, own, peers in ROWS:
        contenders = results.get(name, {}).get("contenders", {})
        if own in contenders:
            others = [f"{peer} {figure(contenders[peer])}" for peer in peers if peer in contenders]
            lines.append(f"| {label} | {figure(contenders[own])} | {', '.join(others)} |")
    lines += [f"| {label} | {figure} | {beside} |" for label, figure, beside in _alone(results)]
    return "\n".join(lines)


def _alone(results: Results) -> Iterator[tuple[str, str, str]]:
    """Yield figures without a peer: nothing else does the same."""
    new = results.get("uncached", {}).get("contenders", {}).get("ragserve")
    if new:
        label = "New questions a second (embed, search, answer), one core"
        yield label, rate(new), f"95 % within {p95(new)}"
    phases = results.get("redis-faults", {}).get("phases", {})
    if phases:
        errors = sum(phase["errors"] for phase in phases.values())
        worst = max(phase["latency_ms"]["p99"] for phase in phases.values())
        label = "Errors while Redis is stopped, slow and killed under load"
        yield label, str(errors), f"99 % within {worst:.0f} ms throughout"
    runs = results.get("startup", {}).get("runs", {}).get("2")
    if runs:
        ready = median(run["ready_s"] for run in runs)
        yield "From the command to ready, two workers", f"{ready:.1f} s", ""
