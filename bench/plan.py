"""How much machine so many users need: ``python -m bench.plan --users N``.

From the committed results of this project's own measurements, with every assumption printed. It is
arithmetic on one machine's figures, not a promise about another's.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.results import read_all

HEADROOM = 0.5
"""Share of a core that is planned for; the rest is for peaks and for the kernel's network work."""
SECONDS_BETWEEN = 0.5
HIT_RATIO = 0.8
USERS = (100, 500, 1000, 2000)
BASE_MB = 450
"""Supervisor, ingest process and embedded PostgreSQL."""


class Costs(NamedTuple):
    """What a request costs, and a process holds."""

    cached_us: float
    uncached_us: float
    memory_mb: float


class Plan(NamedTuple):
    """What to buy."""

    requests_per_s: float
    cores: int
    memory_mb: float


def costs(results: list[dict[str, Any]]) -> Costs:
    """Return ragserve's figures; raise ``LookupError`` that names the missing scenario."""
    found = {
        result["scenario"]: result["contenders"].get("ragserve")
        for result in results
        if "contenders" in result
    }
    for name in ("cached-1000", "uncached"):
        if not found.get(name):
            raise LookupError(f"bench/results has no {name}: python -m bench.run {name}")
    return Costs(
        found["cached-1000"]["cpu_us"],
        found["uncached"]["cpu_us"],
        found["cached-1000"]["memory_mb"],
    )


def plan(users: int, between_s: float, hit_ratio: float, cost: Costs) -> Plan:
    """Return the cores and the memory for ``users`` who ask every ``between_s`` on average."""
    rate = users / between_s
    each_us = hit_ratio * cost.cached_us + (1 - hit_ratio) * cost.uncached_us
    cores = max(1, math.ceil(rate * each_us / 1e6 / HEADROOM))
    return Plan(rate, cores, max(BASE_MB, cost.memory_mb) + (cores - 1) * cost.memory_mb / 2)


def capacity(results: list[dict[str, Any]]) -> str:
    """Return what some numbers of users need, as Markdown, with all that is assumed."""
    return table(costs(results), USERS, SECONDS_BETWEEN, HIT_RATIO)


def table(cost: Costs, users: Sequence[int], between_s: float, hit_ratio: float) -> str:
    """Return the plans for several numbers of users, as Markdown."""
    lines = ["| users | requests/s | cores | memory MB |", "|---:|---:|---:|---:|"]
    for number in users:
        made = plan(number, between_s, hit_ratio, cost)
        lines.append(
            f"| {number:,} | {made.requests_per_s:,.0f} | {made.cores} | {made.memory_mb:,.0f} |"
        )
    lines.append(
        f"\nAssumed: a question every {between_s} s and user; {hit_ratio:.0%} of them answered from"
        f" the first cache tier at {cost.cached_us:.0f} µs of processor each, the others without a"
        f" language model at {cost.uncached_us:.0f} µs, PostgreSQL included; cores at most"
        f" {HEADROOM:.0%} busy. Measured on the machine named in bench/results."
    )
    return "\n".join(lines)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=int, action="append", help="may be given several times")
    parser.add_argument("--between", type=float, default=SECONDS_BETWEEN, help="seconds")
    parser.add_argument("--hits", type=float, default=HIT_RATIO, help="share of cached answers")
    arguments = parser.parse_args()
    if not 0 <= arguments.hits <= 1 or arguments.between <= 0:
        parser.error("--hits is between 0 and 1, --between is more than 0")
    try:
        cost = costs(read_all())
    except LookupError as error:
        raise SystemExit(str(error)) from error
    print(table(cost, arguments.users or USERS, arguments.between, arguments.hits))


if __name__ == "__main__":
    main()
