"""A worker's listening sockets: accepts in batches, so that a crowd gets in at once.

An event loop's own server accepts one connection a turn. Under load a turn takes milliseconds, and
a thousand clients that come back after a restart would get in one by one, for seconds.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import structlog
from aiohttp import web

from ragserve.edge.lane import Lane
from ragserve.edge.protocol import Connection
from ragserve.edge.watch import Watch, Watched

log = structlog.get_logger(__name__)

BATCH = 8
"""Connections accepted a turn; those who are in wait no longer than that takes."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE_S = 0.1


class Site(web.BaseSite):
    """Serves ``runner`` on ``listeners``; connections have an express lane if there is one.

    Without a ``watch`` they are aiohttp's own.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        listeners: Sequence[socket.socket],
        lane: Lane | None,
        watch: Watch | None,
        *,
        backlog: int,
    ) -> None:
        super().__init__(runner, backlog=backlog)
        self._listeners = listeners
        self._lane = lane
        self._watch = watch
        self._opening: set[asyncio.Task[object]] = set()
        self._paused: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        """Return the first address."""
        address = self._listeners[0].getsockname()
        if not isinstance(address, tuple):
            return f"unix:{address}"
        host, port = address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Listen."""
        await super().start()
        self._loop = asyncio.get_running_loop()
        self._connection = self._factory()
        if self._watch is not None:
            self._watch.start(self._open_connections)
        for listener in self._listeners:
            listener.setblocking(False)
            listener.listen(self._backlog)
            self._loop.add_reader(listener, self._accept, listener)

    async def stop(self) -> None:
        """Let those in who wait, and nobody after them; connections that are open stay so."""
        if self._paused is not None:
            self._paused.cancel()
        for listener in self._listeners:
            self._accept(listener, self._backlog)
            self._loop.remove_reader(listener)
            listener.close()
        await super().stop()

    def _open_connections(self) -> Iterable[Watched]:
        server = self._runner.server
        return () if server is None else cast("list[Connection]", server.connections)

    def _factory(self) -> Callable[[], asyncio.Protocol]:
        server = self._runner.server
        if server is None:
            raise RuntimeError("set the runner up first")
        lane, watch, loop = self._lane, self._watch, self._loop
        if watch is None:
            return server
        return lambda: Connection(server, lane, watch, loop=loop, **server._kwargs)

    def _accept(self, listener: socket.socket, most: int = BATCH) -> None:
        for _ in range(most):
            try:
                client, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                # The kernel keeps telling of who waits; we look again when some may have left.
                log.warning("accept_paused", error=str(error))
                for one in self._listeners:
                    self._loop.remove_reader(one)
                self._paused = self._loop.call_later(EXHAUSTED_PAUSE_S, self._resume)
                return
            host = address[0] if isinstance(address, tuple) else ""
            if self._watch is not None and not self._watch.admit(host):
                client.close()
                continue
            client.setblocking(False)
            opening = self._loop.create_task(self._open(client, host))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, client: socket.socket, host: str) -> None:
        try:
            await self._loop.connect_accepted_socket(self._connection, client)
        except OSError:
            client.close()  # it has left already
            if self._watch is not None:
                self._watch.forget(host)

    def _resume(self) -> None:
        self._paused = None
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
