"""``check``: is the configuration right, and is everything there that the server needs?"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import click
import msgspec

from ragserve.cli.checks.database import check_database
from ragserve.cli.checks.files import check_files
from ragserve.cli.checks.finding import Finding, failed
from ragserve.cli.checks.host import check_host
from ragserve.cli.checks.models import check_embedder, check_models, check_redis, check_reranker
from ragserve.cli.waiting import database_here, telling
from ragserve.config import Config
from ragserve.errors import RagserveError, Unavailable
from ragserve.host.members import run_directory

PATIENCE_S = 60.0
"""No check takes longer; a model may have to be loaded."""
COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}


def run(config: Config, config_file: Path | None, data_dir: Path, *, as_json: bool) -> int:
    """Check everything; print what was found; return 0 or the worst failure's exit code."""
    found = examine(config, config_file, data_dir, os.environ)
    if as_json:
        click.echo(msgspec.json.encode(found))
    else:
        click.echo(report(found, colors=sys.stdout.isatty()))
    return max(finding.exit_code for finding in found)


def examine(
    config: Config, config_file: Path | None, data_dir: Path, environ: Mapping[str, str]
) -> list[Finding]:
    """Return everything that can be found out about this host and what it depends on."""
    run_dir = run_directory(config.storage, data_dir, environ)
    workers = len(os.sched_getaffinity(0))
    found = [
        *check_files(config_file, data_dir, environ),
        *check_host(config, data_dir, run_dir, workers),
    ]
    if any(finding.name == "data directory" and finding.verdict == "fail" for finding in found):
        return found + asyncio.run(_elsewhere(config, config.database.dsn or None))
    try:
        with database_here(config, data_dir) as dsn, telling("asking everything"):
            return found + asyncio.run(_elsewhere(config, dsn))
    except RagserveError as error:
        found.append(failed("database", error, "the log that is named; room on the disk"))
        return found + asyncio.run(_elsewhere(config, None))


async def _elsewhere(config: Config, dsn: str | None) -> list[Finding]:
    """Return what is found by asking; all are asked at once."""
    checks: dict[str, Callable[[], Awaitable[list[Finding]]]] = {
        "embedder": lambda: check_embedder(config, dsn),
        "language model": lambda: check_models(config),
        "reranker": lambda: check_reranker(config),
        "redis": lambda: check_redis(config),
    }
    if dsn is not None:
        checks = {"database": lambda: check_database(config, dsn), **checks}
    parts = await asyncio.gather(*(_patiently(name, ask) for name, ask in checks.items()))
    return [finding for part in parts for finding in part]


async def _patiently(name: str, ask: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await ask()
    except TimeoutError:
        error = Unavailable(f"no answer within {PATIENCE_S:g} s")
        return [failed(name, error, "the network, and what runs there")]


def report(found: list[Finding], *, colors: bool = False) -> str:
    """Return a line for each finding, with its remedy below, and a sum."""
    width = max(len(finding.name) for finding in found)
    lines = []
    for finding in found:
        verdict = (
            click.style(finding.verdict, fg=COLORS[finding.verdict])
            if colors
            else (finding.verdict)
        )
        lines.append(f"{verdict}  {finding.name:{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"      {'':{width}}  → {finding.remedy}")
    verdicts = [finding.verdict for finding in found]
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in COLORS if name in verdicts)
    return "\n".join([*lines, f"{len(found)} checks: {counts}"])
