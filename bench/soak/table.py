"""The result of a soak as Markdown."""

from __future__ import annotations

from collections import Counter
from typing import Any


def table(result: dict[str, Any]) -> str:
    """Return the outcomes, the faults, and how the longest-lived processes grew."""
    faults = ", ".join(f"{n} × {name.replace('_', ' ')}" for name, n in result["faults"].items())
    lines = [
        f"**soak**: {result['minutes']:.0f} minutes of mixed load of two tenants, with {faults}.",
        "",
        "| requests | outcome | |",
        "|---|---|---:|",
    ]
    for name, count in result["outcomes"].items():
        kind, _, outcome = name.partition(": ")
        lines.append(f"| {kind} | {outcome} | {count:,} |")
    scrapes, failed = result["scrapes"]
    lines += [
        "",
        f"Counters that fell in {scrapes} scrapes ({failed} of them failed):"
        f" {len(result['counters_fallen'])}. Still under way at the end:"
        f" {result['still_under_way'] or 'nothing'}.",
        "",
        "| process | resident MB, by quarters | descriptors | threads |",
        "|---|---|---|---|",
    ]
    for name, growth in result["growth"].items():
        cells = (" → ".join(f"{one:.0f}" for one in quarters) for quarters in growth.values())
        lines.append(f"| {name.partition(' ')[0]} | {' | '.join(cells)} |")
    if kept := result.get("kept_answers_mb"):  # since 0.1.0
        kept_mb = " → ".join(f"{one:.0f}" for one in kept)
        lines += ["", f"Answers kept by all workers, by quarters of the whole: {kept_mb} MB."]
    examples = Counter((*result["examples"], *result["counters_fallen"][:5]))
    lines += ["", *(f"- {count} × {example}" for example, count in examples.items())]
    return "\n".join(lines)
