"""Workers behind nginx: a real one in this process, on a Unix socket of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from ragserve.handlers import SERVICES
from ragserve.host.sockets import bind_own
from ragserve.ingest.run import ingesting
from ragserve.worker.app import create_app
from ragserve.worker.run import make_site
from tests.conftest import configured, own_directory
from tests.nginx.edge import Edge, edge


@asynccontextmanager
async def behind_nginx(data_dir: Path, dsn: str, **settings: object) -> AsyncIterator[Edge]:
    """Run a worker, an ingest process, and nginx in front of them."""
    config = configured(**settings)
    app = create_app(config, data_dir, dsn)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    with own_directory() as directory:
        try:
            listener = bind_own(str(directory), 0, 128)
            await make_site(runner, [listener], config, app).start()
            app[SERVICES].phase = "ready"
            async with (
                ingesting(config, data_dir, dsn),
                edge(directory / "nginx", f"unix:{directory}/worker-0.sock") as running,
            ):
                yield running
        finally:
            await runner.cleanup()
