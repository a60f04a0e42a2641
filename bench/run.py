"""Measure and compare: ``python -m bench.run SCENARIO…`` (``--list`` names them).

Servers get the lower half of the cores, the load generator the upper half. Contenders take turns
(A B A B …), each started anew, so that a noisy minute hits all alike; medians are reported. What
this machine lacks is reported as not run. Results are written to ``bench/results``;
``python -m bench.render`` makes the tables and plots of the README from them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import cores, streams, wrk
from bench.contenders import Place
from bench.measure import collect_answers, measure_once
from bench.render import table
from bench.results import Run, environment, summary, write
from bench.scenarios import SCENARIOS, Load, Scenario


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", action="append", help="only contenders whose name has this in it")
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.scenarios if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; --list names them")
    if arguments.list or not arguments.scenarios:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:12} {scenario.about}")
        return
    loads = {name: SCENARIOS[name].load for name in arguments.scenarios}
    needs_wrk = [name for name, load in loads.items() if isinstance(load, Load) and load.wrk]
    if needs_wrk and (reason := wrk.missing()):
        raise SystemExit(f"{', '.join(needs_wrk)} not run: {reason}")
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        if any(isinstance(load, Load) for load in loads.values()):
            collect_answers(place)
        for name in arguments.scenarios:
            result = measure(SCENARIOS[name], place, arguments)
            print(table(result))
            if not arguments.dry:
                print(f"written: {write(name, result)}\n")


def measure(scenario: Scenario, place: Place, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a scenario: each contender's runs and their summary."""
    chosen = [
        one
        for one in scenario.contenders
        if not arguments.only or any(part in one.name for part in arguments.only)
    ]
    summarise = summary if isinstance(scenario.load, Load) else streams.summary
    not_run = {one.name: reason for one in chosen if (reason := one.missing())}
    for name, reason in not_run.items():
        print(f"{scenario.name}: {name} not run: {reason}", file=sys.stderr)
    runs: dict[str, list[Run]] = {one.name: [] for one in chosen if one.name not in not_run}
    for number in range(arguments.rounds):
        for contender in chosen:
            if contender.name in not_run:
                continue
            if isinstance(scenario.load, Load):
                run = measure_once(contender, scenario.load, place, arguments.seconds)
            else:
                run = streams.measure_once(contender, scenario.load, place, number)
            runs[contender.name].append(run)
            shown = json.dumps(run)
            print(f"{scenario.name} {number + 1}/{arguments.rounds} {contender.name}: {shown}")
    return {
        "scenario": scenario.name,
        "about": scenario.about,
        "load": scenario.load._asdict(),
        "server_cores": len(place.cores),
        "seconds": arguments.seconds,
        "environment": environment(),
        "contenders": {name: summarise(made) for name, made in runs.items()},
        "not_run": not_run,
        "runs": runs,
    }


if __name__ == "__main__":
    main()
