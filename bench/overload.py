"""Ten times what the server can answer: ``python -m bench.overload``.

New questions come at a fixed rate, ten times the one that a closed loop reached, whether or not the
server keeps up. Reported: answers a second against the closed loop's (goodput), the latency of what
was answered, and how fast the rest was refused. Both are measured in short turns, many times: what
a machine shared with others can do changes by a tenth from one to the next.

Two things can be short: the processor, where answers are extracted, and a language model's places,
where one writes them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from bench import cores
from bench.contenders import RAGSERVE_COLLECTION, Contender, Place, Up
from bench.questions import QUESTIONS
from bench.relays import paced_model, with_model
from bench.results import environment, write
from bench.scenarios import RAGSERVE

USERS = 100
TIMES = 10
SECONDS = 8.0
ROUNDS = 9
WRITTEN_SECONDS = 15.0
"""An answer of a model's takes half as long."""
WRITTEN_ROUNDS = 3
CONNECTIONS = 2000
"""Of the open loop; more than are ever busy, so that nothing waits in the generator."""
PACE = {"tokens": 200, "first_ms": 100, "interval_ms": 20}
LLM = {"RAGSERVE_LLM__CONNECTIONS": "64"}
"""So many answers are written at once, in four seconds each."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        phases = measure(RAGSERVE, place, "extracted", SECONDS, ROUNDS)
        with paced_model(place, **PACE, gives_way=True) as there:
            before = with_model("ragserve before a model", "", len(cores.SERVERS), LLM)
            how = "written by a model"
            phases |= measure(before, there, how, WRITTEN_SECONDS, WRITTEN_ROUNDS)
    result = {"scenario": "overload", "environment": environment(), "phases": phases}
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('overload', result)}")


def measure(
    contender: Contender, place: Place, how: str, seconds: float, rounds: int
) -> dict[str, dict[str, Any]]:
    """Return the figures of the closed loop and of the overload, each the median of ``rounds``.

    Answers come about as ``how`` says.
    """
    peaks, floods = [], []
    with contender.run(place) as up:
        for number in range(rounds):
            seed = ("--seed", str(2 * number + 1))
            peaks.append(_load(up, seconds, "--users", str(USERS), *seed))
            rate = TIMES * peaks[-1]["answers_per_s"]
            seed = ("--seed", str(2 * number + 2))
            load = ("--rate", str(rate), "--connections", str(CONNECTIONS), *seed)
            floods.append(_load(up, seconds, *load))
            print(json.dumps([peaks[-1], floods[-1]]), file=sys.stderr, flush=True)
    goodput = [
        flood["answers_per_s"] / peak["answers_per_s"]
        for flood, peak in zip(floods, peaks, strict=True)
    ]
    return {
        f"{how}: closed loop, {USERS} users": _together(peaks),
        f"{how}: {TIMES} times that": {**_together(floods), "goodput": round(median(goodput), 3)},
    }


def _together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure; statuses are added up."""

    def middle(name: str, of: str = "") -> float:
        values = [run[of].get(name, 0.0) if of else run[name] for run in runs]
        return float(round(median(values), 3))

    statuses: Counter[str] = Counter()
    for run in runs:
        statuses.update(run["statuses"])
    return {
        "asked_per_s": middle("asked_per_s"),
        "answers_per_s": middle("answers_per_s"),
        "statuses": dict(statuses),
        **{
            kind: {name: middle(name, kind) for name in ("p50", "p99")}
            for kind in ("answered_ms", "refused_ms")
        },
    }


def _load(up: Up, seconds: float, *load: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.load", str(QUESTIONS), "--key", up.key, "--fresh"]
    command += ["--url", f"http://127.0.0.1:{up.port}", "--collection", RAGSERVE_COLLECTION]
    command += ["--seconds", str(seconds), "--warm-up", "3", *load]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        timeout=seconds + 120,
        preexec_fn=cores.generate,
    )
    report = json.loads(done.stdout)
    answered = report["statuses"].get("200", 0)
    return {
        "asked_per_s": round(sum(report["statuses"].values()) / report["seconds"], 1),
        "answers_per_s": round(answered / report["seconds"], 1),
        "statuses": report["statuses"],
        "answered_ms": report["answered_ms"],
        "refused_ms": report["refused_ms"],
    }


def table(result: dict[str, Any]) -> str:
    """Return the phases as Markdown."""
    lines = [
        "**overload**: new questions, ten times as many as can be answered.",
        "",
        "| | asked/s | answered/s | × | p50 ms | p99 ms | refused | p50 ms | p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in result["phases"].items():
        goodput = one.get("goodput", 1.0)
        answered, refused = one["answered_ms"], one["refused_ms"]
        others = {key: count for key, count in one["statuses"].items() if key != "200"}
        shown = ", ".join(f"{count} × {status}" for status, count in others.items()) or "none"
        lines.append(
            f"| {name} | {one['asked_per_s']:.0f} | {one['answers_per_s']:.0f} | {goodput:.2f}"
            f" | {answered.get('p50', 0):.1f} | {answered.get('p99', 0):.1f}"
            f" | {shown} | {refused.get('p50', 0):.1f} | {refused.get('p99', 0):.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
