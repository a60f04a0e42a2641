"""One abusive tenant of a hundred: ``python -m bench.tenants``.

Ninety-nine tenants ask new questions at a modest rate, all in all a quarter of what the server can
answer, which is measured first; the hundredth asks ten times what it can answer, without a pause.
Reported is what the ninety-nine see with and without it, in turns: where each tenant has a limit,
and where turns at the gates are all that protects them.

No question is asked twice, by whomever: each load has a seed of its own. The abusive tenant's
generator gives way to the others' (SCHED_IDLE): both share the generators' core, and what is
measured is how long the server takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from bench import cores
from bench.contenders import HANDBOOK, RAGSERVE_COLLECTION, Place, Up, ragserve
from bench.questions import QUESTIONS
from bench.results import environment, write
from ragserve.config import Config
from ragserve.store.embedded import database_dsn
from ragserve.store.keys import create_key
from ragserve.store.pool import Database

OTHERS = 99
USERS = 100
PEAK_S = 6.0
"""What can be answered is measured for so long: so many users ask one question after the other."""
OTHERS_SHARE = 0.25
FLOOD_TIMES = 10.0
CONNECTIONS = {"others": 200, "flood": 800}
"""Of the open loops; more than are ever busy, so that nothing waits in the generators."""
WARM_UP_S = 3.0
SETTLE_S = 8.0
"""By then the burst that a limit allows has been answered."""
QUESTIONS_ASKED = 1000
"""By the others in each load, however slow the machine: of fewer a p99 is the luck of a few."""
ROUNDS = 3
SEEDS = count(1)
"""No two loads share one."""
NAMES = {"alone": "others alone", "beside": "others beside it", "flood": "the abusive one"}
PAPERS = ("leave.md", "notes.txt", "api.rst")
"""Of the handbook: enough for each tenant to find something."""

Figures = dict[str, Any]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load, at least")
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        peak_per_s = _peak(place)
        seconds = max(arguments.seconds, QUESTIONS_ASKED / (OTHERS_SHARE * peak_per_s))
        protections = {
            name: _protected(place, env, seconds, peak_per_s)
            for name, env in protections_at(peak_per_s).items()
        }
    result = {"scenario": "tenants", "environment": environment(), "protections": protections}
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('tenants', result)}")


def protections_at(peak_per_s: float) -> dict[str, dict[str, str]]:
    """Return what a server that can answer so much is told to do about the flood, by name.

    The limit is each tenant's share: four times what one of the others asks, and no more than can
    be answered if all hundred ask as much as they may.
    """
    per_minute = max(1, round(peak_per_s * 60 / (OTHERS + 1)))
    return {
        f"at most {per_minute} questions a minute": {
            "RAGSERVE_TENANT_RATE__QUERY_PER_MINUTE": str(per_minute)
        },
        "turns at the gates alone": {},
    }


def _peak(place: Place) -> float:
    """Return how many questions a second can be answered."""
    with ragserve("ragserve", len(cores.SERVERS), lambda _: {}).run(place) as up:
        keys = _tenants(place, up)
        peak = _asked(up, keys[1:], PEAK_S, "--users", str(USERS))
        return float(peak["statuses"]["200"] / peak["seconds"])


def _protected(
    place: Place, env: dict[str, str], seconds: float, peak_per_s: float
) -> dict[str, Figures]:
    """Return what the others see alone and beside the flood, and what comes of the flood."""
    runs: dict[str, list[Figures]] = {"alone": [], "beside": [], "flood": []}
    with ragserve("ragserve", len(cores.SERVERS), lambda _: env).run(place) as up:
        keys = _tenants(place, up)
        others = ("--rate", str(OTHERS_SHARE * peak_per_s), *_connections("others"))
        for _ in range(ROUNDS):
            runs["alone"].append(_asked(up, keys[1:], seconds, *others))
            with _flood(up, keys[0], FLOOD_TIMES * peak_per_s, seconds) as report:
                runs["beside"].append(_asked(up, keys[1:], seconds, *others))
            runs["flood"].append(report)
            print(json.dumps(runs), file=sys.stderr, flush=True)
    return {name: together(reports) for name, reports in runs.items()}


def _tenants(place: Place, up: Up) -> list[str]:
    """Return a key for each tenant; they are made, and their papers taken in, once."""
    kept = place.directory / "keys"
    if not kept.exists():
        tokens = asyncio.run(_keys(place.directory / "data"))
        papers = documents()
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda token: _take_in(up, token, papers), tokens):
                pass
        kept.write_text("\n".join(tokens), encoding="utf-8")
    return kept.read_text(encoding="utf-8").split()


def documents() -> list[dict[str, str]]:
    """Return what each tenant has."""
    return [{"id": name, "text": (HANDBOOK / name).read_text(encoding="utf-8")} for name in PAPERS]


async def _keys(data: Path) -> list[str]:
    settings = Config().database
    with database_dsn("", data) as dsn:
        database = Database(dsn, settings, size=1)
        await database.open()
        try:
            made = [
                await create_key(database, tenant=name, name=name, scopes=["query", "ingest"])
                for name in ("abusive", *(f"tenant-{number}" for number in range(OTHERS)))
            ]
        finally:
            await database.close()
    return [token for _, token in made]


def _take_in(up: Up, key: str, papers: list[dict[str, str]]) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{up.port}/v1/documents?wait=60",
        data=json.dumps({"documents": papers}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    with urllib.request.urlopen(request, timeout=90) as response:
        if response.status != 200:
            raise RuntimeError(f"documents are not there after a minute: {response.read()!r}")


def _command(up: Up, keys: list[str]) -> list[str]:
    command = [sys.executable, "-m", "bench.load", str(QUESTIONS), "--fresh"]
    command += ["--url", f"http://127.0.0.1:{up.port}", "--collection", RAGSERVE_COLLECTION]
    command += ["--seed", str(next(SEEDS)), *(word for key in keys for word in ("--key", key))]
    return command


def _connections(load: str) -> tuple[str, str]:
    return ("--connections", str(CONNECTIONS[load]))


def _asked(up: Up, keys: list[str], seconds: float, *load: str) -> Figures:
    command = [*_command(up, keys), *load]
    command += ["--seconds", str(seconds), "--warm-up", str(WARM_UP_S)]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        timeout=seconds + 60,
        preexec_fn=cores.generate,
    )
    report: Figures = json.loads(done.stdout)
    return report


@contextlib.contextmanager
def _flood(up: Up, key: str, rate: float, seconds: float) -> Iterator[Figures]:
    """Have the abusive tenant ask while the block runs; its report is there at the end."""
    command = [*_command(up, [key]), "--rate", str(rate), *_connections("flood")]
    command += ["--seconds", str(WARM_UP_S + seconds), "--warm-up", str(SETTLE_S)]
    report: Figures = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=_give_way) as process:
        try:
            # Its report is not due before the end of the block, unless it has failed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SETTLE_S)
            yield report
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    report.update(json.loads(said))


def _give_way() -> None:
    cores.generate()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def together(reports: list[Figures]) -> Figures:
    """Return reports of the same load as one: what was counted added up, else the median."""
    statuses = Counter[str]()
    for report in reports:
        statuses.update(report["statuses"])
    seconds = sum(report["seconds"] for report in reports)
    return {
        "asked_per_s": round(statuses.total() / seconds, 1),
        "answers_per_s": round(statuses["200"] / seconds, 1),
        "statuses": dict(sorted(statuses.items())),
        **{
            kind: {
                name: round(median(report[kind].get(name, 0.0) for report in reports), 3)
                for name in ("p50", "p99", "max")
            }
            for kind in ("answered_ms", "refused_ms")
        },
    }


def table(result: dict[str, Any]) -> str:
    """Return the phases as Markdown."""
    lines = [
        f"**tenants**: {OTHERS} tenants ask new questions, beside one who asks ten times what can"
        " be answered.",
        "",
        "| | asked/s | answered/s | refused | p50 ms | p99 ms | × | refusals' p99 ms |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for protection, loads in result["protections"].items():
        for name, label in NAMES.items():
            one = loads[name]
            refused = sum(one["statuses"].values()) - one["statuses"].get("200", 0)
            alone_ms = max(0.001, loads["alone"]["answered_ms"]["p99"])
            ratio = "" if name == "flood" else f"{one['answered_ms']['p99'] / alone_ms:.2f}"
            lines.append(
                f"| {protection}: {label} | {one['asked_per_s']:,.0f}"
                f" | {one['answers_per_s']:.0f} | {refused:,} | {one['answered_ms']['p50']:.1f}"
                f" | {one['answered_ms']['p99']:.1f} | {ratio}"
                f" | {one['refused_ms']['p99']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
