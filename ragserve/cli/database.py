"""``database``: the embedded PostgreSQL as a service of its own.

Under systemd nobody supervises workers and ingest process together, so a server that one of them
had started would end with it. Here it outlives them all; they find it by ``database.dsn``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import structlog

from ragserve.errors import Unavailable
from ragserve.host.notify import Notifier, last_words
from ragserve.store.embedded import EmbeddedPostgres

log = structlog.get_logger(__name__)


def run(data_dir: Path) -> int:
    """Run it until SIGTERM or SIGINT; raise ``Unavailable`` if it ends by itself."""
    data_dir.mkdir(parents=True, exist_ok=True)
    embedded = EmbeddedPostgres(data_dir)
    with last_words(os.environ):
        dsn = embedded.acquire()
        try:
            asyncio.run(_until_stopped(embedded, dsn))
        finally:
            embedded.release()
    log.info("database_stopped")
    return 0


async def _until_stopped(embedded: EmbeddedPostgres, dsn: str) -> None:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[bool] = loop.create_future()

    def end(by_itself: bool) -> None:
        if not ended.done():
            ended.set_result(by_itself)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end, False)
    server = os.pidfd_open(embedded.pid)
    loop.add_reader(server, end, True)
    notifier = Notifier(os.environ)
    try:
        notifier.ready()
        log.info("database_ready", dsn=dsn)
        by_itself = await ended
        notifier.send("STOPPING=1")
    finally:
        loop.remove_reader(server)
        os.close(server)
        notifier.close()
    if by_itself:
        raise Unavailable(f"{embedded!r} ended by itself: see log beside its data")
