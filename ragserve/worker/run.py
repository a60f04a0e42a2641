"""A worker's life: start → serve → drain → close."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import structlog
from aiohttp import web

from ragserve.config import Config
from ragserve.handlers import SERVICES
from ragserve.worker.app import create_app
from ragserve.worker.sockets import listening_socket

log = structlog.get_logger(__name__)


async def run_worker(config: Config, data_dir: Path, dsn: str, *, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = config.server
    listener = listening_socket(os.environ, server.host, server.port, server.backlog)
    app = create_app(config, data_dir, dsn, workers=workers)
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=server.keepalive_timeout_s,
        # A client that leaves stops the work it asked for.
        handler_cancellation=True,
        shutdown_timeout=server.drain_timeout_s,
    )
    await runner.setup()
    try:
        site = web.SockSite(runner, listener, backlog=server.backlog)
        await site.start()
        app[SERVICES].phase = "ready"
        host, port = listener.getsockname()[:2]
        log.info("worker_ready", address=f"http://{_bracketed(host)}:{port}", pid=os.getpid())
        await stop.wait()
        app[SERVICES].phase = "draining"
        log.info("worker_drains")
    finally:
        await runner.cleanup()
    log.info("worker_stopped")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
