"""Measure and compare: ``python -m bench.run SCENARIO…`` (``--list`` names them).

Servers get the lower half of the cores, the load generator the upper half. Contenders take turns
(A B A B …), each started anew, so that a noisy minute hits all alike; medians are reported. What
this machine lacks is reported as not run. Results are written to ``bench/results``;
``python -m bench.render`` makes the tables and plots of the README from them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import cores, streams, wrk
from bench.contenders import RAGSERVE_COLLECTION, Contender, Place, Up
from bench.questions import QUESTIONS, read_questions
from bench.render import table
from bench.results import Run, environment, summary, write
from bench.scenarios import RAGSERVE, SCENARIOS, Load, Scenario


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


def collect_answers(place: Place) -> None:
    """Ask ragserve every question once; peers give the same answers to the same requests."""
    with RAGSERVE.run(place) as up, place.answers.open("w", encoding="utf-8") as answers:
        for request, response in ask_all(up):
            pair = {"request": request, "response": response}
            answers.write(json.dumps(pair, ensure_ascii=False) + "\n")


def ask_all(up: Up) -> Iterator[tuple[str, str]]:
    """Ask every question once; yield the bodies of request and response."""
    for question in read_questions(QUESTIONS):
        body = json.dumps({"query": question, "collection": RAGSERVE_COLLECTION})
        request = urllib.request.Request(
            f"http://127.0.0.1:{up.port}/v1/query",
            data=body.encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {up.key}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            yield body, response.read().decode()


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


def measure_once(contender: Contender, load: Load, place: Place, seconds: float) -> Run:
    """Return one run: the generator's report, and what the contender used meanwhile."""
    with contender.run(place) as up:
        if not load.fresh:
            for _ in ask_all(up):  # what is to be asked has been asked before
                pass
        before = cpu_s(up)
        report = _generate(up, load, seconds)
        used = cpu_s(up) - before
        memory = sum(process.memory_mb() for process in up.processes)
    # The warm-up used processor time as well; its requests are not in the report.
    report["cpu_us"] = round(used * 1e6 / max(1, report["answered"]), 1)
    report["memory_mb"] = round(memory, 1)
    return report


def cpu_s(up: Up) -> float:
    """Return the processor time that a contender has used."""
    return sum(process.cpu_s() for process in up.processes)


def make_wrk(zipf: float, key: str) -> wrk.Wrk:
    """Return wrk on the generators' cores."""
    return wrk.Wrk(
        QUESTIONS,
        collection=RAGSERVE_COLLECTION,
        zipf=zipf,
        key=key,
        threads=len(cores.GENERATORS),
        pin=cores.generate,
    )


def _generate(up: Up, load: Load, seconds: float) -> Run:
    if load.wrk:
        return make_wrk(load.zipf, up.key).run_warm(up.port, load.users, seconds)
    command = [sys.executable, "-m", "bench.load", str(QUESTIONS), "--key", up.key]
    command += ["--url", f"http://127.0.0.1:{up.port}", "--collection", RAGSERVE_COLLECTION]
    command += ["--users", str(load.users), "--think", str(load.think_s), "--zipf", str(load.zipf)]
    command += ["--seconds", str(seconds), "--warm-up", "3"]
    if load.rate:
        command += ["--rate", str(load.rate)]
    if load.fresh:
        command.append("--fresh")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 120,
        preexec_fn=cores.generate,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    report: Run = json.loads(done.stdout)
    return report


if __name__ == "__main__":
    main()
