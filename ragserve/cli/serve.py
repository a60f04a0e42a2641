"""``serve`` and the processes it starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import click

from ragserve.config import Config
from ragserve.host.members import WORKER
from ragserve.host.sockets import bind_socket
from ragserve.store.embedded import database_dsn
from ragserve.supervisor.policy import Slot
from ragserve.supervisor.supervisor import Program, Supervisor, command


def run(config: Config, data_dir: Path, workers: int, reload: Callable[[], object]) -> int:
    """Supervise workers and the ingest process; hold the embedded database meanwhile.

    ``reload`` loads the configuration again and raises if it cannot be used.
    """
    server = config.server
    data_dir.mkdir(parents=True, exist_ok=True)
    listeners = [bind_socket(server.host, server.port, server.backlog)]
    port = listeners[0].getsockname()[1]
    listeners += [bind_socket(server.host, port, server.backlog) for _ in range(workers - 1)]
    # The children read the same file; what the command line changed goes through the environment.
    os.environ["RAGSERVE_STORAGE__DATA_DIR"] = str(data_dir)
    cores = sorted(os.sched_getaffinity(0))
    programs = [
        Program(
            Slot(f"worker-{number}", overlaps=True),
            command("worker", "--workers", str(workers)),
            listener,
            # A worker alone may go where there is room.
            cores[number % len(cores)] if workers > 1 else None,
            {WORKER: str(number)},
        )
        for number, listener in enumerate(listeners)
    ]
    programs.append(Program(Slot("ingester", overlaps=False), command("ingester")))
    with database_dsn(config.database.dsn, data_dir):
        return Supervisor(programs, server.drain_timeout_s, reload).run()


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
