"""A worker's life: start → serve → drain → close."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from aiohttp import web

from ragserve.config import Config
from ragserve.edge.protocol import check_aiohttp
from ragserve.edge.site import Site
from ragserve.edge.watch import WATCH
from ragserve.errors import Unavailable
from ragserve.handlers import SERVICES, Services
from ragserve.host.notify import Notifier
from ragserve.host.reload import Reload, keep
from ragserve.metrics import WORKER_CONNECTIONS
from ragserve.store.keyring import Keyring
from ragserve.worker.app import create_app, create_lane
from ragserve.worker.sockets import listening_sockets

log = structlog.get_logger(__name__)

IDLE_GRACE_S = 0.5
STREAM_END_S = 1.0
"""Streams that are ended get so long to tell their clients."""
RELOAD_S = 60.0
"""A process that begins again may take so long to start."""
GC_THRESHOLDS = (1_000, 2, 2_500)
"""Nearly everything goes by reference counting; requests leave no cycles unless they fail.

What stays for a while, such as thousands of new connections, is looked at a few thousand objects at
a time: with (5,000, 20, 50) the middle generation grew to 100,000, which stopped all for 50 ms.
"""
MIN_OPEN_FILES = 4096


async def run_worker(
    config: Config, data_dir: Path, dsn: str, check_reload: Callable[[], object], *, workers: int
) -> bool:
    """Serve until SIGTERM or SIGINT, then finish what is under way.

    Return whether to begin again: after SIGHUP, if ``check_reload`` does not raise.
    """
    stop = asyncio.Event()
    reload = Reload(check_reload, stop)
    server = config.server
    listeners = listening_sockets(os.environ, server)
    app = create_app(config, data_dir, dsn, workers=workers, listener=listeners[0])
    runner = web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        keepalive_timeout=server.keepalive_timeout_s,
        # A client that leaves stops the work it asked for.
        handler_cancellation=True,
        shutdown_timeout=1.0,
    )
    notifier = Notifier(os.environ)
    await runner.setup()
    beating = asyncio.create_task(notifier.beat())
    protocols = runner.server
    assert protocols is not None  # noqa: S101 - after setup() it is there
    WORKER_CONNECTIONS.set_function(lambda: len(protocols.connections))
    try:
        site = make_site(runner, listeners, config, app)
        await site.start()
        settle_garbage()
        app[SERVICES].phase = "ready"
        notifier.ready()
        warn_of_limits(server.backlog)
        await warn_of_anybody(app[SERVICES].keyring)
        log.info("worker_ready", address=site.name, pid=os.getpid())
        await stop.wait()
        if reload.wanted:
            keep(listeners)
            notifier.reloading(RELOAD_S + server.drain_timeout_s)
        else:
            notifier.send("STOPPING=1")
        await site.stop()
        await _drain(app[SERVICES], server.drain_timeout_s)
    finally:
        beating.cancel()
        notifier.close()
        await runner.cleanup()
    log.info("worker_stopped")
    return reload.decide()


def make_site(
    runner: web.AppRunner,
    listeners: Sequence[socket.socket],
    config: Config,
    app: web.Application,
) -> web.BaseSite:
    """Return the site of ``listeners``, with the express lane if that is possible."""
    reason = check_aiohttp()
    if reason is not None:
        log.warning("express_lane_off", reason=reason)
    with_lane = reason is None and config.server.express_lane
    lane = create_lane(config, app) if with_lane else None
    watch = app[WATCH] if reason is None else None
    return Site(runner, listeners, lane, watch, backlog=config.server.backlog)


async def _drain(services: Services, timeout_s: float) -> None:
    """Finish what is under way; every answer from now on closes its connection.

    Closing idle connections at once would race with the requests that are on their way over
    them, so they get a moment to be used and closed by their answer.
    """
    services.phase = "draining"
    log.info("worker_drains", in_flight=services.in_flight.count)
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout_s
    await asyncio.sleep(min(IDLE_GRACE_S, timeout_s))
    if await services.in_flight.wait_none(max(0.0, until - loop.time())):
        return
    log.warning(
        "drain_timed_out", in_flight=services.in_flight.count, streams=len(services.streams)
    )
    services.streams.end()
    await services.in_flight.wait_none(STREAM_END_S)


def settle_garbage() -> None:
    """Keep the collector away from what lives as long as the worker, and let it come less often.

    A full collection looked at all modules and models: 124 ms in which no stream moved.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def warn_of_anybody(keyring: Keyring) -> None:
    """Say loudly who is served without a key."""
    with contextlib.suppress(Unavailable):
        if served := await keyring.anybody():
            log.warning("served_without_a_key", served=served, instead="ragserve keys create NAME")


def warn_of_limits(backlog: int) -> None:
    """Say where the kernel grants less than a thousand users need."""
    with contextlib.suppress(OSError):
        somaxconn = int(Path("/proc/sys/net/core/somaxconn").read_text(encoding="ascii"))
        if somaxconn < backlog:
            log.warning("backlog_capped", somaxconn=somaxconn, backlog=backlog)
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files < MIN_OPEN_FILES:
        log.warning("few_open_files", limit=open_files, needed=MIN_OPEN_FILES)
