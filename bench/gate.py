"""Has ragserve become much slower? ``python -m bench.gate`` says so; the tests ask it, too.

Processor time is compared, not the clock's, and with aiohttp alone in the same run: what slows the
machine slows both. The bounds are wide; they catch what doubles a path's cost, not what costs 10 %.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean

from bench import cores
from bench.contenders import Contender, Place, alone
from bench.measure import collect_answers, measure_once
from bench.scenarios import ORDINARY, RAGSERVE, Load

LOAD = Load(users=32)
SECONDS = 1.5
ROUNDS = 2
PEER = alone("aiohttp alone")
BOUNDS = {RAGSERVE.name: 0.8, ORDINARY.name: 4.0}
"""A repeated question's processor time, in that of aiohttp alone: at most so much."""


def ratios(directory: Path) -> dict[str, float]:
    """Return each path's processor time for a request, with that of aiohttp alone as unit."""
    place = Place(cores.SERVERS, directory, directory / "answers.jsonl")
    collect_answers(place)
    used: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        unit = _cpu_us(PEER, place)
        for contender in (RAGSERVE, ORDINARY):
            used.setdefault(contender.name, []).append(_cpu_us(contender, place) / unit)
    return {name: round(mean(found), 2) for name, found in used.items()}


def too_slow(found: dict[str, float]) -> list[str]:
    """Return what is out of its bound, in words."""
    return [
        f"{name}: {found[name]} x the processor time of aiohttp alone, the bound is {bound}"
        for name, bound in BOUNDS.items()
        if found[name] > bound
    ]


def _cpu_us(contender: Contender, place: Place) -> float:
    run = measure_once(contender, LOAD, place, SECONDS)
    if run["errors"]:
        raise RuntimeError(f"{contender.name}: {run['errors']} errors, {run['statuses']}")
    return float(run["cpu_us"])


def main() -> None:
    """Run from the command line."""
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        found = ratios(Path(directory))
    print(found)
    if slow := too_slow(found):
        raise SystemExit("\n".join(slow))


if __name__ == "__main__":
    main()
