"""The express lane and its peers, turn by turn: ``python -m bench.express``.

All contenders are up at once and get bursts of load in turns (A B C A B C …), so that whatever
else the machine does hits all alike; ratios are taken within a round, and medians over rounds.
``--idle N`` measures what N idle keep-alive connections hold, each of which has asked once.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench import cores, wrk
from bench.contenders import Contender, Place, Up
from bench.measure import collect_answers, cpu_s, make_wrk
from bench.scenarios import FASTAPI, GIN, LIMIT, ORDINARY, RAGSERVE

CONTENDERS = (RAGSERVE, ORDINARY, FASTAPI, GIN, LIMIT)
HEAD = (
    f"{'':24} {'requests/s':>10} {'× Gin':>6} {'× nginx':>8} {'× FastAPI':>9}"
    f" {'CPU µs':>7} {'p50 ms':>7} {'p99 ms':>7} {'errors':>7}"
)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--idle", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    if reason := wrk.missing():
        raise SystemExit(reason)
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ragserve-bench-"))
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        collect_answers(place)
        ups: dict[str, Up] = {}
        for number, contender in enumerate(CONTENDERS):
            if reason := contender.missing():
                print(f"{contender.name} not run: {reason}", file=sys.stderr)
                continue
            ups[contender.name] = stack.enter_context(_in_own(contender, place, number))
        if arguments.idle:
            for name, up in ups.items():
                print(f"{name:24} {idle(up, arguments.idle):6.1f} KB for each of {arguments.idle}")
            return
        for up in ups.values():
            burst(up, arguments.connections, wrk.WARM_UP_S)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(
                {
                    name: burst(up, arguments.connections, arguments.seconds)
                    for name, up in ups.items()
                }
            )
            said = ", ".join(
                f"{name} {run['requests_per_s']:,.0f}" for name, run in rounds[-1].items()
            )
            print(f"round {number + 1}: {said}", file=sys.stderr)
        print(table(rounds))


def _in_own(contender: Contender, place: Place, number: int) -> Any:
    """Start a contender with a directory of its own: two servers cannot share one."""
    own = place.directory / str(number)
    own.mkdir()
    return contender.run(place._replace(directory=own))


def burst(up: Up, connections: int, seconds: float) -> dict[str, Any]:
    """Return the report of one burst, with the processor time of a request."""
    before = cpu_s(up)
    report = make_wrk(1.0, up.key).run(up.port, connections, seconds)
    report["cpu_us"] = (cpu_s(up) - before) * 1e6 / max(1, report["answered"])
    return report


def table(rounds: list[dict[str, dict[str, Any]]]) -> str:
    """Return medians over the rounds; a ratio is the median of the rounds' ratios."""
    lines = [HEAD]
    for name in rounds[0]:
        runs = [one[name] for one in rounds]

        def ratio(peer: str, name: str = name) -> str:
            if peer not in rounds[0]:
                return "-"
            each = [one[name]["requests_per_s"] / one[peer]["requests_per_s"] for one in rounds]
            return f"{median(each):.2f}"

        lines.append(
            f"{name:24} {median(run['requests_per_s'] for run in runs):10,.0f}"
            f" {ratio(GIN.name):>6} {ratio(LIMIT.name):>8} {ratio(FASTAPI.name):>9}"
            f" {median(run['cpu_us'] for run in runs):7.1f}"
            f" {median(run['latency_ms']['p50'] for run in runs):7.2f}"
            f" {median(run['latency_ms']['p99'] for run in runs):7.2f}"
            f" {sum(run['errors'] for run in runs):7d}"
        )
    return "\n".join(lines)


def idle(up: Up, count: int) -> float:
    """Return the KB that each of ``count`` idle connections holds in the server."""
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    request = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"
    before = sum(process.memory_mb() for process in up.processes)
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", up.port), 10))
            client.sendall(request)
            if not client.recv(4096).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("a connection was refused")
        after = sum(process.memory_mb() for process in up.processes)
    return (after - before) * 1024 / count


if __name__ == "__main__":
    main()
