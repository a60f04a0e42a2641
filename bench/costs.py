"""What keys, limits and admission cost: ``python -m bench.costs``.

Workers that differ in nothing but their limits are up at once and get bursts of the same load in
turns, so that whatever else the machine does hits all alike. Compared is the processor time of the
worker's own process for a request; what a step adds is the median over the rounds of differences
within a round. Questions have been asked before, and are answered by the express lane or, with the
lane off, the ordinary way.

Admission is asked before a new question only. That takes milliseconds, in which its share could not
be seen, so entrance and gates are measured by themselves, in this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import uvloop

from bench import cores, wrk
from bench.contenders import RAGSERVE, Place, Up, prepared, redis
from bench.measure import ask_all, make_wrk
from bench.process import free_port, started
from bench.results import environment, write
from ragserve.config import Config
from ragserve.flow.deadline import deadline_after
from ragserve.pipeline.gates import open_gates

PER_MINUTE = str(6 * 10**7)
"""More than anybody asks: what is measured is counting, not refusing."""
KEYS_LIMIT = {"RAGSERVE_RATE__QUERY_PER_MINUTE": PER_MINUTE}
ALL_LIMITS = {
    **KEYS_LIMIT,
    "RAGSERVE_TENANT_RATE__QUERY_PER_MINUTE": PER_MINUTE,
    "RAGSERVE_ADDRESS_RATE__QUERY_PER_MINUTE": PER_MINUTE,
}
LANES = {"express lane": "true", "ordinary path": "false"}
ADMISSIONS = 20_000
CONNECTIONS_TO_DATABASE = 16
TENANT = "default"


class Step(NamedTuple):
    """Something turned on besides what was on in step ``after``, and how the worker is told."""

    name: str
    after: str | None
    env: dict[str, str]
    with_key: bool = True
    on_redis: bool = False


NOTHING = Step("nothing: anybody may ask, any number", None, {}, with_key=False)
KEY = Step("a key", NOTHING.name, {})
BUCKET = Step("… and a limit by key", KEY.name, KEYS_LIMIT)
BUCKETS = Step("… and limits by tenant and address", BUCKET.name, ALL_LIMITS)
LEASES = Step("… all three kept in Redis", BUCKETS.name, ALL_LIMITS, on_redis=True)
STEPS = (NOTHING, KEY, BUCKET, BUCKETS, LEASES)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    if reason := wrk.missing():
        raise SystemExit(reason)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ragserve-bench-")))
        place = Place(cores.SERVERS, directory, directory / "answers.jsonl")
        port = free_port()
        stack.enter_context(redis(directory, port))
        ups = _all_up(stack, place, f"redis://127.0.0.1:{port}/0")
        rounds = []
        for number in range(arguments.rounds):
            rounds.append({name: cpu_us(up, arguments.connections, 1) for name, up in ups.items()})
            said = ", ".join(f"{us:.1f}" for us in rounds[-1].values())
            print(f"round {number + 1}: {said}", file=sys.stderr)
    result = {
        "scenario": "costs",
        "environment": environment(),
        "connections": arguments.connections,
        "cpu_us": {name: [round(one[name], 3) for one in rounds] for name in ups},
        "admission_us": {
            name: [round(one, 3) for one in made] for name, made in admission_us().items()
        },
    }
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('costs', result)}")


def _all_up(stack: ExitStack, place: Place, redis_url: str) -> dict[str, Up]:
    """Start a worker for each step on each path; return them warm, by ``path: step``."""
    data = place.directory / "data"
    key = prepared(data)
    ups: dict[str, Up] = {}
    for path, lane in LANES.items():
        for number, step in enumerate(STEPS):
            if step is KEY:  # the same worker as before, who gets to see a key
                ups[f"{path}: {step.name}"] = ups[f"{path}: {NOTHING.name}"]._replace(key=key)
                continue
            env = {
                **step.env,
                "RAGSERVE_SERVER__EXPRESS_LANE": lane,
                "RAGSERVE_STORAGE__RUN_DIR": str(place.directory / f"run-{lane}-{number}"),
            }
            if step.on_redis:
                env["RAGSERVE_REDIS__URL"] = redis_url
            up = stack.enter_context(_worker(place, data, env, key))
            for _ in ask_all(up):
                pass
            ups[f"{path}: {step.name}"] = up if step.with_key else up._replace(key="")
    for up in ups.values():
        cpu_us(up, 64, 1)
    return ups


@contextmanager
def _worker(place: Place, data: Path, env: dict[str, str], key: str) -> Iterator[Up]:
    """Run a worker alone, without supervisor and ingest process, on what is in ``data``."""
    port = free_port()
    own = {
        "RAGSERVE_SERVER__PORT": str(port),
        "RAGSERVE_AUTH__ALLOW_ANONYMOUS": "true",
        "RAGSERVE_LOG__ACCESS": "false",
        "RAGSERVE_DATABASE__CONNECTIONS": "2",
    }
    command = [*RAGSERVE, "worker", "--workers", "1", "--data-dir", str(data)]
    log = place.directory / "workers.log"
    with started(command, cores=place.cores, log=log, env={**own, **env}) as process:
        process.wait_ready(f"http://127.0.0.1:{port}/ready")
        yield Up(port, [process], key)


def cpu_us(up: Up, connections: int, seconds: float) -> float:
    """Return the worker's processor time for a request of one burst."""
    (worker,) = up.processes
    before = worker.own_cpu_s()
    report = make_wrk(1.0, up.key).run(up.port, connections, seconds)
    if report["errors"]:
        raise RuntimeError(f"{report['errors']} errors of {report['answered']}")
    return (worker.own_cpu_s() - before) * 1e6 / report["answered"]


def admission_us() -> dict[str, list[float]]:
    """Return what a new question's way past the entrance and through two gates takes."""
    os.sched_setaffinity(0, cores.SERVERS)
    return uvloop.run(_admission_us())


async def _admission_us() -> dict[str, list[float]]:
    gates = open_gates(Config(), CONNECTIONS_TO_DATABASE)
    entrance = gates.admission(writes=False)
    budget_s = Config().server.request_timeout_s

    async def nothing() -> None:
        deadline_after(budget_s, time.monotonic())

    async def enter() -> None:
        now = time.monotonic()
        entrance.check(TENANT, now, deadline_after(budget_s, now))

    async def pass_gates() -> None:
        deadline = deadline_after(budget_s, time.monotonic())
        async with (
            gates.compute.permit(TENANT, deadline),
            gates.database.permit(TENANT, deadline),
        ):
            pass

    steps: dict[str, Callable[[], Awaitable[None]]] = {
        "the entrance": enter,
        "two gates": pass_gates,
    }
    found: dict[str, list[float]] = {name: [] for name in steps}
    await _each_us(pass_gates)  # they learn how long things take
    for _ in range(10):
        unit = await _each_us(nothing)
        for name, step in steps.items():
            found[name].append(await _each_us(step) - unit)
    return found


async def _each_us(step: Callable[[], Awaitable[None]]) -> float:
    before = time.process_time()
    for _ in range(ADMISSIONS):
        await step()
    return (time.process_time() - before) * 1e6 / ADMISSIONS


def table(result: dict[str, Any]) -> str:
    """Return what each step costs on each path, as Markdown."""
    cpu, admission = result["cpu_us"], result["admission_us"]
    rounds = len(next(iter(cpu.values())))
    lines = [
        "**costs**: a worker's processor time for a question that has been asked before, µs;"
        f" medians of {rounds} rounds, in brackets the middle half of them.",
        "",
        f"| | {' | '.join(f'{path} | adds' for path in LANES)} |",
        "|---|" + "---:|---:|" * len(LANES),
    ]
    for step in STEPS:
        cells = []
        for path in LANES:
            own = cpu[f"{path}: {step.name}"]
            cells.append(f"{median(own):.1f}")
            before = cpu.get(f"{path}: {step.after}", own)
            added = [one - other for one, other in zip(own, before, strict=True)]
            cells.append(_with_spread(added) if step.after else "")
        lines.append(f"| {step.name} | {' | '.join(cells)} |")
    lines += ["", "| admission, of a new question only | adds |", "|---|---:|"]
    lines += [f"| {name} | {_with_spread(made)} |" for name, made in admission.items()]
    return "\n".join(lines)


def _with_spread(made: list[float]) -> str:
    low, _, high = quantiles(made, n=4)
    return f"{median(made):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
