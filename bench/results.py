"""Results on disk: what was measured, on which machine, by which command."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ragserve", "aiohttp", "uvloop", "msgspec", "fastapi", "uvicorn", "pydantic")
PROGRAMS = (("go", "version"), ("nginx", "-v"), ("wrk", "-v"))
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")
"""What decides how long the embedding model takes, the widest first: processors of one
name differ eightfold."""

Run = dict[str, Any]


def environment() -> dict[str, Any]:
    """Return what a reader must know to judge the figures."""
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "rev-parse", "--short", "HEAD"),
        "changed": bool(
            _said("git", "status", "--porcelain", "-uno", "--", ".", ":!bench/results")
        ),
        "command": " ".join(["python -m", _module(), *sys.argv[1:]]),
        "machine": _processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "programs": {name: _said(name, flag) for name, flag in PROGRAMS},
    }


def summary(runs: list[Run]) -> Run:
    """Return the median of each figure over the runs of one contender; errors are added up."""
    return {
        "runs": len(runs),
        "requests_per_s": round(median(run["requests_per_s"] for run in runs), 1),
        "errors": sum(run["errors"] for run in runs),
        "requests": sum(run["requests"] for run in runs),
        "latency_ms": {
            name: round(median(run["latency_ms"].get(name, 0.0) for run in runs), 3)
            for name in ("p50", "p95", "p99", "max")
        },
        "cpu_us": round(median(run["cpu_us"] for run in runs), 1),
        "memory_mb": round(median(run["memory_mb"] for run in runs), 1),
    }


def phases_table(about: str, phases: Mapping[str, Run]) -> str:
    """Return what was measured in one phase after another as Markdown, under ``about``."""
    lines = [
        about,
        "",
        "| | answers/s | errors | p50 ms | p99 ms | max ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, one in phases.items():
        latency = one["latency_ms"]
        lines.append(
            f"| {name} | {one['requests_per_s']:.0f} | {one['errors']} | {latency['p50']:.2f}"
            f" | {latency['p99']:.2f} | {latency['max']:.2f} |"
        )
    return "\n".join(lines)


def write(name: str, result: dict[str, Any]) -> Path:
    """Keep a scenario's result; it replaces the one before."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_all() -> list[dict[str, Any]]:
    """Return all that is kept, by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def _module() -> str:
    """Return what was run with ``python -m``."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec is not None else sys.argv[0]


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return None
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name, and the widest of its ``INSTRUCTIONS``."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(":") for line in lines)
    told = {name.strip(): value.strip() for name, _, value in pairs}
    flags = told.get("flags", "").split()
    widest = next((one for one in INSTRUCTIONS if one in flags), "")
    return f"{told.get('model name', platform.machine())} {widest}".rstrip()
