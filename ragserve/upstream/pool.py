"""Connections to one server: so many at once, and idle ones kept for a while."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragserve.errors import ConfigurationError, Overloaded
from ragserve.upstream.connection import Connection
from ragserve.upstream.failure import CallFailed
from ragserve.upstream.origin import Origin

IDLE_S = 15.0
"""Less than servers and the firewalls before them keep an idle connection."""
WAITING_PER_CONNECTION = 32
"""More callers than this for each connection would wait longer than they will."""


class Pool:
    """``connections`` bounds the exchanges under way; callers beyond it wait, first come first."""

    def __init__(
        self, origin: Origin, *, connections: int, connect_timeout_s: float, ca_file: str = ""
    ) -> None:
        self._origin = origin
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._ssl = _context(ca_file) if origin.tls else None
        self._slots = asyncio.Semaphore(connections)
        self._busy = 0
        self._waiting = 0
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._closed = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until an exchange may begin."""
        if self._waiting >= WAITING_PER_CONNECTION * self._connections:
            raise Overloaded(
                f"{self._origin.url}: {self._waiting} calls wait already", retry_after_s=1.0
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._slots.release()

    async def take(self, *, fresh: bool = False) -> Connection:
        """Return the connection used last, or a new one; within a slot."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            connection.keep()
            if not connection.closed:
                return connection
        origin = self._origin
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._freed, self._lost),
                    origin.host,
                    origin.port,
                    ssl=self._ssl,
                )
        except TimeoutError as error:
            text = f"no connection within {self._connect_timeout_s:g} s"
            raise CallFailed(text, "connect") from error
        except (OSError, UnicodeError) as error:
            raise CallFailed(str(error) or type(error).__name__, "connect") from error
        if not connection.closed:
            self._open.add(connection)
            self._none_open.clear()
        return connection

    async def close(self) -> None:
        """Close all connections, and wait until they are."""
        self._closed = True
        for connection in tuple(self._open):
            connection.close()
        await self._none_open.wait()

    def _freed(self, connection: Connection) -> None:
        if self._closed:
            connection.close()
            return
        connection.close_in(IDLE_S)
        self._idle.append(connection)

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()
        if connection in self._idle:
            self._idle.remove(connection)

    def __repr__(self) -> str:
        return f"<Pool {self._busy} busy, {len(self._idle)} idle, {self._waiting} waiting>"


def _context(ca_file: str) -> ssl.SSLContext:
    """Return what verifies a server: by the system's authorities, or only by those of a file."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # not there, not readable, no PEM (ssl.SSLError)
        raise ConfigurationError(f"ca_file {ca_file!r}: {error}") from error
