"""``serve`` and the processes it starts."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from ragserve.cli.keeper import kept
from ragserve.config import Config, ServerConfig
from ragserve.host.members import WORKER, run_directory
from ragserve.host.sockets import bind_own, bind_socket, fits
from ragserve.store.embedded import database_dsn
from ragserve.supervisor.log import log
from ragserve.supervisor.policy import Slot
from ragserve.supervisor.supervisor import Program, Settings, Supervisor, command
from ragserve.supervisor.takeover import Orphan, end_ingester, find_orphans

INGESTER_PATIENCE = 10.0


def run(config: Config, data_dir: Path, workers: int, reload: Callable[[], object]) -> int:
    """Supervise workers and the ingest process; hold the embedded database meanwhile.

    ``reload`` loads the configuration again and raises if it cannot be used.
    """
    log.configure(config.log)
    raise_file_limit()
    server = config.server
    data_dir.mkdir(parents=True, exist_ok=True)
    # The children read the same file; what the command line changed goes through the environment.
    os.environ["RAGSERVE_STORAGE__DATA_DIR"] = str(data_dir)
    orphans = find_orphans(run_directory(config.storage, data_dir, os.environ))
    end_ingester(orphans)
    listeners = listen(server, workers, orphans)
    port = listeners[0].getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))

    def worker(number: int, listener: socket.socket) -> Program:
        own = [bind_own(server.sockets_dir, number, server.backlog)] if server.sockets_dir else []
        return Program(
            Slot(f"worker-{number}", overlaps=True),
            command("worker", "--workers", str(workers)),
            [listener, *own],
            # A worker alone may go where there is room.
            cores[number % len(cores)] if workers > 1 else None,
            {WORKER: str(number)},
        )

    settings = Settings(
        server.drain_timeout_s,
        reload,
        lambda number: worker(number, bind_socket(server.host, port, server.backlog)),
    )
    programs = [worker(number, listener) for number, listener in enumerate(listeners)]
    ingester = Program(
        Slot("ingester", overlaps=False, patience=INGESTER_PATIENCE), command("ingester")
    )
    with kept(config.database.dsn, data_dir):
        return Supervisor(programs, [ingester], settings, orphans).run()


def raise_file_limit() -> None:
    """Let this process and its children open as many files as the hard limit grants.

    A shell's soft limit is 1024 for the sake of select(2), which nothing here calls.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listen(server: ServerConfig, workers: int, orphans: Sequence[Orphan]) -> list[socket.socket]:
    """Return a socket on the shared port for each worker: orphans' where they fit, or new ones."""
    given = [
        orphan.listener
        for orphan in orphans
        if orphan.listener is not None and fits(orphan.listener, server.host, server.port)
    ][:workers]
    if not given:
        given = [bind_socket(server.host, server.port, server.backlog)]
    port = given[0].getsockname()[1]
    missing = workers - len(given)
    return given + [bind_socket(server.host, port, server.backlog) for _ in range(missing)]


def run_one_worker(
    config: Config, data_dir: Path, workers: int, check_reload: Callable[[], object]
) -> int:
    """Run one worker in this process."""
    import uvloop

    from ragserve.host.notify import last_words
    from ragserve.host.reload import begin_again
    from ragserve.store.migrate import prepare_database
    from ragserve.worker.run import run_worker

    async def life(dsn: str) -> bool:
        await prepare_database(dsn, config.database.connect_timeout_s)
        return await run_worker(config, data_dir, dsn, check_reload, workers=workers)

    data_dir.mkdir(parents=True, exist_ok=True)
    with last_words(os.environ), database_dsn(config.database.dsn, data_dir) as dsn:
        again = uvloop.run(life(dsn))
    if again:
        begin_again()
    return 0


def run_ingester(config: Config, data_dir: Path, check_reload: Callable[[], object]) -> int:
    """Run the ingest process in this process."""
    import uvloop

    from ragserve.host.notify import last_words
    from ragserve.host.reload import begin_again
    from ragserve.ingest.run import run_ingest_process
    from ragserve.store.migrate import prepare_database

    async def life(dsn: str) -> bool:
        await prepare_database(dsn, config.database.connect_timeout_s)
        return await run_ingest_process(config, data_dir, dsn, check_reload)

    data_dir.mkdir(parents=True, exist_ok=True)
    with last_words(os.environ), database_dsn(config.database.dsn, data_dir) as dsn:
        again = uvloop.run(life(dsn))
    if again:
        begin_again()
    return 0


def run_migrate(config: Config, data_dir: Path) -> int:
    """Apply pending migrations and say which."""
    import asyncio

    from ragserve.cli.waiting import database_here
    from ragserve.store.migrate import prepare_database

    with database_here(config, data_dir) as dsn:
        applied = asyncio.run(prepare_database(dsn, config.database.connect_timeout_s))
    for migration in applied:
        click.echo(f"applied {migration.number:04} {migration.name}")
    if not applied:
        click.echo("the database is up to date")
    return 0
