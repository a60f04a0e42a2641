"""``serve`` and the processes it starts."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ragserve.config import Config
from ragserve.store.embedded import database_dsn


def run(config: Config, data_dir: Path, workers: int) -> int:
    """Supervise workers and the ingest process; hold the embedded database meanwhile."""
    from ragserve.supervisor.supervisor import Child, Supervisor, command
    from ragserve.worker.sockets import bind_socket

    server = config.server
    data_dir.mkdir(parents=True, exist_ok=True)
    first = bind_socket(server.host, server.port, server.backlog)
    port = first.getsockname()[1]
    listeners = [first]
    listeners += [bind_socket(server.host, port, server.backlog) for _ in range(workers - 1)]
    # The children read the same file; what the command line changed goes through the environment.
    os.environ["RAGSERVE_STORAGE__DATA_DIR"] = str(data_dir)
    children = [
        Child(f"worker-{number}", command("worker", "--workers", str(workers)), listener)
        for number, listener in enumerate(listeners)
    ]
    children.append(Child("ingester", command("ingester"), None))
    with database_dsn(config.database.dsn, data_dir):
        return Supervisor(children, server.drain_timeout_s).run()


def run_one_worker(config: Config, data_dir: Path, workers: int) -> int:
    """Run one worker in this process."""
    import uvloop

    from ragserve.store.migrate import prepare_database
    from ragserve.worker.run import run_worker

    async def life(dsn: str) -> None:
        await prepare_database(dsn, config.database.connect_timeout_s)
        await run_worker(config, data_dir, dsn, workers=workers)

    data_dir.mkdir(parents=True, exist_ok=True)
    with database_dsn(config.database.dsn, data_dir) as dsn:
        uvloop.run(life(dsn))
    return 0


def run_ingester(config: Config, data_dir: Path) -> int:
    """Run the ingest process in this process."""
    import uvloop

    from ragserve.ingest.run import run_ingest_process
    from ragserve.store.migrate import prepare_database

    async def life(dsn: str) -> None:
        await prepare_database(dsn, config.database.connect_timeout_s)
        await run_ingest_process(config, data_dir, dsn)

    data_dir.mkdir(parents=True, exist_ok=True)
    with database_dsn(config.database.dsn, data_dir) as dsn:
        uvloop.run(life(dsn))
    return 0


def run_migrate(config: Config, data_dir: Path) -> int:
    """Apply pending migrations and say which."""
    import asyncio

    from ragserve.store.migrate import prepare_database

    data_dir.mkdir(parents=True, exist_ok=True)
    with database_dsn(config.database.dsn, data_dir) as dsn:
        applied = asyncio.run(prepare_database(dsn, config.database.connect_timeout_s))
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    if not applied:
        click.echo("the database is up to date")
    return 0
