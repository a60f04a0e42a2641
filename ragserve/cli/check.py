"""``check``: is the configuration right, and is everything there that it names?"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import click

from ragserve.config import Config
from ragserve.embed import open_embedder
from ragserve.errors import RagserveError, exit_code
from ragserve.generate import LanguageModel
from ragserve.store.embedded import database_dsn
from ragserve.store.migrate import check_server, pending_migrations
from ragserve.store.pool import DRIVER_ERRORS
from ragserve.store.redis import Redis

MIN_OPEN_FILES = 4096


def run(config: Config, data_dir: Path) -> int:
    """Check everything, a line each; return 0 or the exit code of the worst finding."""
    click.echo("configuration: ok")
    worst = 0
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("data directory", lambda: _data_dir(data_dir)),
        ("open files", _open_files),
        ("database", lambda: _database(config, data_dir)),
        ("embedder", lambda: _embedder(config)),
        ("language model", lambda: _model(config)),
        ("redis", lambda: _redis(config)),
    ]
    for name, check in checks:
        try:
            click.echo(f"{name}: {asyncio.run(check())}")  # type: ignore[arg-type]
        except RagserveError as error:
            click.echo(f"{name}: FAILED: {error.message}", err=True)
            worst = max(worst, exit_code(error))
    return worst


async def _data_dir(data_dir: Path) -> str:
    try:
        os.makedirs(data_dir, exist_ok=True)  # noqa: PTH103 - nothing else runs
    except OSError as error:
        raise RagserveError(f"{data_dir}: {error.strerror}") from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise RagserveError(f"{data_dir}: not writable")
    status = os.statvfs(data_dir)
    return f"ok, {data_dir}, {status.f_bavail * status.f_frsize / 1e9:.1f} GB free"


async def _open_files() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MIN_OPEN_FILES:
        raise RagserveError(f"limit {soft}, a thousand users need {MIN_OPEN_FILES} (ulimit -n)")
    return f"ok, limit {soft}"


async def _database(config: Config, data_dir: Path) -> str:
    with database_dsn(config.database.dsn, data_dir) as dsn:
        try:
            connection = await asyncpg.connect(dsn, timeout=config.database.connect_timeout_s)
        except (OSError, TimeoutError, ValueError, *DRIVER_ERRORS) as error:
            raise RagserveError(f"cannot connect: {error or type(error).__name__}") from error
        try:
            await check_server(connection)
            version = await connection.fetchval("SHOW server_version")
            pending = len(await pending_migrations(connection))
        finally:
            await connection.close(timeout=1.0)
    kind = "configured" if config.database.dsn else "embedded"
    return f"ok, {kind} PostgreSQL {version}, {pending} migrations pending"


async def _embedder(config: Config) -> str:
    embedder = await open_embedder(config.embedding)
    try:
        return f"ok, {embedder.name}, {embedder.dimensions} dimensions"
    finally:
        await embedder.close()


async def _model(config: Config) -> str:
    if not config.llm.servers:
        return "none configured: answers are extracted sentences"
    model = LanguageModel(config.llm)
    try:
        await model.check()
    finally:
        await model.close()
    return f"ok, {config.llm.model} at {config.llm.servers[0].base_url}"


async def _redis(config: Config) -> str:
    if not config.redis.url:
        return "none configured: each worker keeps answers of its own"
    redis = Redis(config.redis)
    try:
        await redis.ping()
    finally:
        await redis.close()
    return f"ok, within {config.redis.timeout_ms:g} ms or without it"
