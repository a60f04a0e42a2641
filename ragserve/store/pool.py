"""The connection pool: bounded, with deadlines, and quick to notice a changed server.

asyncpg checks a server's role only when it connects. After a failover or restart the pool would
hand out connections to the wrong or to no server, so an error that says so expires all of them.
A connection that the server closed while it lay idle is replaced before anything is sent over it:
then nobody sees an error, and nothing can have happened twice.

A server that takes what is sent and says nothing (frozen, out of reach without a word, its disk
stuck) costs no time but that of whoever finds out, the ``Listener``: what waits for such a server
is cut off, and nothing more is sent to it until it speaks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog
from pgvector.asyncpg import register_vector

from ragserve.config import DatabaseConfig
from ragserve.errors import Unavailable
from ragserve.store.dial import DRIVER_ERRORS, UNREACHABLE, dial

log = structlog.get_logger(__name__)

# The breadth of an HNSW search: at 60 recall@10 is 0.99 (50,000 vectors), above it hybrid's
# candidates want as many good neighbours as they ask for.
EF_SEARCH = 100
CLOSE_S = 1.0
REDIAL_S = (0.1, 0.3)
"""After a failed attempt to connect there is none for so long, at random: while there is nobody to
connect to every request would make one, and many processes do."""
POLITE_NICE = 15
"""A tenth of the usual share of a contended CPU: enough that a lock is not held for long."""
# 25006 a standby, 57P0x shutting down, 08xxx connection lost.
STALE_STATES = ("25006", "57P", "08")
CANCELLED = "57014"
"""The server gave a statement up, at its time limit or because somebody told it to."""
SILENT = "it does not say a word"
_KEEP_ALIVE = (
    (socket.TCP_KEEPIDLE, 5),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 2),
    (socket.TCP_USER_TIMEOUT, 15_000),
)


class Database:
    """A pool of connections to the store. ``open`` before use, ``close`` after.

    With ``polite`` the server's processes for these connections step back behind others, which
    only works for the embedded server: it runs on this host and is ours.
    """

    def __init__(
        self, dsn: str, config: DatabaseConfig, *, size: int, polite: bool = False
    ) -> None:
        self.dsn = dsn
        self._polite = polite and not config.dsn
        self._config = config
        self.size = size
        self.silent = False
        self._pool: asyncpg.Pool | None = None
        self._lent: set[asyncpg.Connection] = set()
        self._acquiring: set[asyncio.Timeout] = set()
        self._redial_at = 0.0
        self._failure = ""

    async def open(self, *, at_once: bool = True) -> None:
        """Connect once, so that a wrong DSN is an error now and not at the first question.

        Not ``at_once``: this server may be away.
        """
        try:
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1 if at_once else 0,
                max_size=self.size,
                connect=self._dial,
                connection_class=_Connection,
                timeout=self._config.connect_timeout_s,
                command_timeout=self._config.statement_timeout_s + 1,
                init=self._prepare,
                # Nothing here leaves session state behind; the default reset is a round trip.
                reset=_keep_session,
                server_settings=self._settings(),
            )
        except UNREACHABLE as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"database: cannot connect: {reason}") from error

    async def close(self) -> None:
        """Close all connections; those in use are cut off after a second."""
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), CLOSE_S)
            except TimeoutError:
                self._pool.terminate()
            self._pool = None

    async def connect(self) -> asyncpg.Connection:
        """Open a connection outside the pool, for LISTEN or a lock; the caller closes it."""
        try:
            connection = await dial(
                self.dsn,
                timeout=self._config.connect_timeout_s,
                server_settings={"application_name": "ragserve"},
            )
            _keep_alive(connection)
        except UNREACHABLE as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"database: cannot connect: {reason}") from error
        return connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection; driver and server failures become ``Unavailable``."""
        if self._pool is None:
            raise Unavailable("database: not connected")
        if self.silent:
            raise Unavailable(f"database: {SILENT} ({self!r})")
        try:
            connection = await self._acquire(self._pool)
            self._lent.add(connection)
            try:
                yield connection
            finally:
                try:
                    await self._take_back(self._pool, connection)
                finally:
                    self._lent.discard(connection)
        except TimeoutError as error:  # before OSError, of which it is one
            limit_s = self._config.acquire_timeout_s
            why = SILENT if self.silent else f"no answer within {limit_s} s"
            raise Unavailable(f"database: {why} ({self!r})") from error
        except (*DRIVER_ERRORS, OSError) as error:
            state = getattr(error, "sqlstate", None) or ""
            if state == CANCELLED:
                raise Unavailable(f"database: {error}") from error
            if isinstance(error, asyncpg.PostgresError) and not state.startswith(STALE_STATES):
                raise
            if not self.silent:
                await self.distrust(error)
            raise Unavailable(f"database: {SILENT if self.silent else error}") from error

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Run one statement and return its rows."""
        async with self.connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(sql, *args)
            return rows

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """Run one statement and return its first row."""
        async with self.connection() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: object) -> Any:
        """Run one statement and return the first value of its first row."""
        async with self.connection() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: object) -> str:
        """Run one statement and return its command tag."""
        async with self.connection() as connection:
            tag: str = await connection.execute(sql, *args)
            return tag

    def fell_silent(self) -> None:
        """Cut off whoever waits for the server, and have nobody else wait, until it ``spoke``."""
        if self.silent:
            return
        self.silent = True
        log.warning("database_silent", cut_off=len(self._lent) + len(self._acquiring))
        for connection in tuple(self._lent):
            with contextlib.suppress(asyncpg.InterfaceError):  # given back just now
                connection.terminate()
        now = asyncio.get_running_loop().time()
        for acquiring in self._acquiring:
            if not acquiring.expired():
                acquiring.reschedule(now)

    def spoke(self) -> None:
        """Go on: the server has said something."""
        if self.silent:
            self.silent = False
            log.info("database_speaks")

    async def _acquire(self, pool: asyncpg.Pool) -> asyncpg.Connection:
        limit_s = self._config.acquire_timeout_s
        async with asyncio.timeout(limit_s) as acquiring:
            self._acquiring.add(acquiring)
            try:
                connection = await pool.acquire(timeout=limit_s)
                if connection.was_interrupted():
                    await self.distrust("the server closed it")
                    connection.terminate()
                    connection = await pool.acquire(timeout=limit_s)
            finally:
                self._acquiring.discard(acquiring)
        return connection

    async def _take_back(self, pool: asyncpg.Pool, connection: asyncpg.Connection) -> None:
        """Return a connection to the pool.

        One to a silent server is cut off: to cancel what it does would take a word of that server.
        """
        if self.silent:
            connection.terminate()
        await pool.release(connection)

    async def distrust(self, error: object) -> None:
        """Replace all connections: the server behind them is gone, or another one."""
        log.warning("database_connections_expired", error=str(error))
        if self._pool is not None:
            await self._pool.expire_connections()

    async def _dial(self, *args: Any, **options: Any) -> asyncpg.Connection:
        if time.monotonic() < self._redial_at:
            raise ConnectionError(self._failure)
        try:
            connection = await dial(*args, **options)
        except UNREACHABLE as error:
            self._failure = str(error) or type(error).__name__
            self._redial_at = time.monotonic() + random.uniform(*REDIAL_S)  # noqa: S311 - jitter
            raise
        self._redial_at = 0.0
        return connection

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        _keep_alive(connection)
        await register_vector(connection)
        if self._polite:
            # Not ours to change, or gone already: then it stays as it is.
            with contextlib.suppress(PermissionError, ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, connection.get_server_pid(), POLITE_NICE)

    def _settings(self) -> dict[str, str]:
        return {
            "application_name": "ragserve",
            "statement_timeout": str(int(self._config.statement_timeout_s * 1000)),
            "hnsw.ef_search": str(EF_SEARCH),
            # Under a filter the index keeps going until enough neighbours pass it.
            "hnsw.iterative_scan": "strict_order",
            "jit": "off",
        }

    @property
    def busy(self) -> int:
        """Return how many connections are lent."""
        return 0 if self._pool is None else self._pool.get_size() - self.idle

    @property
    def idle(self) -> int:
        """Return how many connections wait to be lent."""
        return 0 if self._pool is None else self._pool.get_idle_size()

    def __repr__(self) -> str:
        if self._pool is None:
            return "<Database closed>"
        return f"<Database {self.busy} busy, {self.idle} idle, {self.size} at most>"


class _Connection(asyncpg.Connection):  # type: ignore[misc] # asyncpg has no types
    __slots__ = ()

    def was_interrupted(self) -> bool:
        """Return whether the server spoke, or closed the connection, without being asked.

        The event loop may not have read it yet, so the socket itself is looked at: 1.4 µs.
        """
        waiting = select.poll()  # select() knows no descriptor above 1023
        waiting.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(waiting.poll(0))


async def _keep_session(_connection: asyncpg.Connection) -> None:
    """Leave the session as it is."""


def _keep_alive(connection: asyncpg.Connection) -> None:
    """Have the kernel notice a host that has gone without a word, within 15 seconds."""
    found = connection._transport.get_extra_info("socket")
    if found is None or found.family == socket.AF_UNIX:
        return
    for option, value in _KEEP_ALIVE:
        found.setsockopt(socket.IPPROTO_TCP, option, value)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def rows_affected(tag: str) -> int:
    """Return the count of a command tag such as ``UPDATE 3``."""
    return int(tag.rpartition(" ")[2])


def pool_size(config: DatabaseConfig, workers: int) -> int:
    """Share the host's budget of connections between its workers."""
    return max(2, config.connections // max(1, workers))
