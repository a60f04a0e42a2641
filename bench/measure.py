"""One measurement: a contender started anew, the questions asked before, a load, its figures."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

from bench import cores, wrk
from bench.contenders import RAGSERVE_COLLECTION, Contender, Place, Up
from bench.questions import QUESTIONS, read_questions
from bench.results import Run
from bench.scenarios import RAGSERVE, Load


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
