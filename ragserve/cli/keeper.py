"""The embedded PostgreSQL of ``serve``: started again when it dies.

A thread waits for its end, so that a recovery of many seconds never keeps the supervisor from
hearing its workers.
"""

from __future__ import annotations

import os
import random
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ragserve.errors import RagserveError
from ragserve.flow.backoff import backoff_s
from ragserve.store.embedded import EmbeddedPostgres
from ragserve.supervisor.log import log

RETRY_BASE_S = 0.5
RETRY_CAP_S = 10.0


@contextmanager
def kept(configured: str, data_dir: Path) -> Iterator[None]:
    """Keep the embedded PostgreSQL running during the context, unless another is configured."""
    if configured:
        yield
        return
    log.info("database_starts", directory=str(data_dir))  # the first time it takes seconds
    embedded = EmbeddedPostgres(data_dir)
    embedded.acquire()
    over, end = os.pipe()
    keeper = threading.Thread(target=_keep, args=(embedded, over), name="keeper")
    keeper.start()
    try:
        yield
    finally:
        os.close(end)
        keeper.join()
        os.close(over)
        embedded.release()


def _keep(embedded: EmbeddedPostgres, over: int) -> None:
    """Start the server again whenever it ends, until the other end of ``over`` is closed."""
    failures = 0
    rng = random.Random()  # noqa: S311 - jitter
    while not _over_before(embedded.pid, over):
        log.error("database_died", pid=embedded.pid)
        while True:
            try:
                embedded.revive()
            except RagserveError as error:
                failures += 1
                log.error("database_lost", attempt=failures, error=error.message)
                pause_s = backoff_s(failures, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=rng)
                if select.select([over], [], [], pause_s)[0]:
                    return
            else:
                failures = 0
                log.info("database_ready", pid=embedded.pid)
                break


def _over_before(pid: int, over: int) -> bool:
    """Return whether it was over before the process ended."""
    with suppress(ProcessLookupError):
        server = os.pidfd_open(pid)
        try:
            return over in select.select([server, over], [], [])[0]
        finally:
            os.close(server)
    return False
