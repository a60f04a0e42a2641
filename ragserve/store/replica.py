"""Searches on a replica, where there is one that has caught up; on the primary otherwise.

A replica lags. Each search on it also reads the collection's version there, in the same snapshot,
and counts only if that is the one the question was asked of: an answer is never older than it
would be from the primary.

Whoever has something else to answer with need not wait for a search that hangs, behind a lock or a
slow disk, and after a few of them does not begin one: a trial now and then tells when it works.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import structlog

from ragserve.errors import Unavailable
from ragserve.flow.bounded import Bounded
from ragserve.flow.breaker import Breaker
from ragserve.metrics import REPLICA_READS
from ragserve.store.collections import Collection
from ragserve.store.pool import Database

log = structlog.get_logger(__name__)

PATIENCE_S = 1.0
"""A search on the replica may take so long; then the primary is asked."""
PAUSE_S = 5.0
"""A replica that failed is left alone for so long."""
HANGS_S = 1.0
"""A search that takes longer hangs; that somebody had less time proves nothing."""
HANGING = 1000
"""Collections whose searches are known to hang, at most."""
_AT = """
SELECT found.*, (SELECT version FROM collections WHERE id = {id}) AS version_there
FROM ({sql}) found
"""


class Searches:
    """Runs searches on ``replica`` or ``primary``."""

    def __init__(self, primary: Database, replica: Database | None = None) -> None:
        self._primary = primary
        self._replica = replica
        self._left_alone_until = float("-inf")
        self._hanging: Bounded[int, Breaker] = Bounded(HANGING)

    async def fetch_soon(
        self, collection: Collection, within_s: float, sql: str, *args: object
    ) -> list[dict[str, Any]]:
        """Return the rows of a search that takes no longer; raise ``Unavailable``.

        Some in a row that took longer have the next ones refused at once.
        """
        breaker = self._hanging.get(collection.id)
        if breaker is not None and not breaker.try_pass(time.monotonic()):
            raise Unavailable(f"database: searches in collection {collection.name!r} hang")
        try:
            async with asyncio.timeout(within_s):
                rows = await self.fetch(collection, sql, *args)
        except TimeoutError as error:
            if breaker is None:
                breaker = self._hanging[collection.id] = Breaker()
            if within_s >= HANGS_S:
                breaker.failed(time.monotonic())
            else:
                breaker.abandoned()
            raise Unavailable(f"database: no answer within {within_s:.1f} s") from error
        except BaseException:
            if breaker is not None:
                breaker.abandoned()
            raise
        self._hanging.pop(collection.id, None)
        return rows

    async def fetch(self, collection: Collection, sql: str, *args: object) -> list[dict[str, Any]]:
        """Return the rows of a search in ``collection``; raise ``Unavailable``."""
        if self._replica is not None and time.monotonic() >= self._left_alone_until:
            rows = await self._try_replica(self._replica, collection, sql, args)
            if rows is not None:
                return rows
        return [dict(row) for row in await self._primary.fetch(sql, *args)]

    async def _try_replica(
        self, replica: Database, collection: Collection, sql: str, args: tuple[object, ...]
    ) -> list[dict[str, Any]] | None:
        """Return the rows, None if the replica is behind, or away, or finds nothing."""
        statement = _AT.format(id=int(collection.id), sql=sql)
        try:
            async with asyncio.timeout(PATIENCE_S):
                rows = [dict(row) for row in await replica.fetch(statement, *args)]
        except asyncpg.PostgresError:
            REPLICA_READS.labels("behind").inc()  # the collection's table is not there yet
            return None
        except (Unavailable, TimeoutError) as error:
            self._left_alone_until = time.monotonic() + PAUSE_S
            log.warning("replica_left_alone", error=str(error) or "too slow", seconds=PAUSE_S)
            REPLICA_READS.labels("failed").inc()
            return None
        versions = {row.pop("version_there") for row in rows}
        if versions != {collection.version}:
            REPLICA_READS.labels("behind").inc()
            return None
        REPLICA_READS.labels("used").inc()
        return rows

    def __repr__(self) -> str:
        return f"<Searches on {self._replica!r}, {self._primary!r}>"
