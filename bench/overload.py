"""Ten times what the server can answer: ``python -m bench.overload``.

New questions come at a fixed rate, ten times the one that a closed loop reached, whether or not the
server keeps up. Reported: answers a second against the closed loop's (goodput), the latency of what
was answered, and how fast the rest was refused.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import cores
from bench.contenders import RAGSERVE_COLLECTION, Place, Up
from bench.questions import QUESTIONS
from bench.results import environment, write
from bench.scenarios import RAGSERVE

USERS = 100
TIMES = 10
CONNECTIONS = 2000
"""Of the open loop; more than are ever busy, so that nothing waits in the generator."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        phases = measure(place, arguments.seconds)
    result = {"scenario": "overload", "environment": environment(), "phases": phases}
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('overload', result)}")


def measure(place: Place, seconds: float) -> dict[str, dict[str, Any]]:
    """Return the figures of the closed loop and of the overload."""
    with RAGSERVE.run(place) as up:
        peak = _load(up, seconds, "--users", str(USERS))
        rate = TIMES * peak["answers_per_s"]
        print(json.dumps(peak), file=sys.stderr, flush=True)
        load = ("--rate", str(rate), "--connections", str(CONNECTIONS), "--seed", "2")
        flood = _load(up, seconds, *load)
        print(json.dumps(flood), file=sys.stderr, flush=True)
    return {f"closed loop, {USERS} users": peak, f"{TIMES} times that": flood}


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
        "| | asked/s | answered/s | p50 ms | p99 ms | refused | p50 ms | p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, one in result["phases"].items():
        answered, refused = one["answered_ms"], one["refused_ms"]
        others = {key: count for key, count in one["statuses"].items() if key != "200"}
        shown = ", ".join(f"{count} × {status}" for status, count in others.items()) or "none"
        lines.append(
            f"| {name} | {one['asked_per_s']:.0f} | {one['answers_per_s']:.0f}"
            f" | {answered.get('p50', 0):.1f} | {answered.get('p99', 0):.1f}"
            f" | {shown} | {refused.get('p50', 0):.1f} | {refused.get('p99', 0):.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
