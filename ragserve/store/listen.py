"""LISTEN on a connection of its own that comes back by itself.

A notification may be lost while the connection is down, so ``on_connect`` runs after every
(re)connection: whoever listens brings itself up to date there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import asyncpg
import structlog

from ragserve.errors import Unavailable
from ragserve.flow.backoff import backoff_s
from ragserve.store.dial import DRIVER_ERRORS, wants_writes
from ragserve.store.pool import Database

log = structlog.get_logger(__name__)

BASE_S = 0.1
CAP_S = 2.0
PROBE = "SHOW transaction_read_only"
PROBE_S = 5.0
"""A dead peer that sent no FIN is noticed after this long."""
PROBE_TIMEOUT_S = 5.0
LOOK_S = 0.3
LOOKS = 5
"""A probe that so many looks in a row find unanswered tells of silence. Looks rather than a time:
when this process is late itself the answer may be here, unread."""


class Listener:
    """Calls back on notifications; ``handlers`` maps a channel to what takes its payload.

    The connection is probed every ``probe_s``. ``on_alive`` is then called with the monotonic time
    up to which nothing was missed: a reply comes after all notifications before its question.
    ``on_silence`` is called when a reply takes suspiciously long; then comes ``on_alive`` or, on a
    new connection, ``on_connect``.
    """

    def __init__(
        self,
        database: Database,
        handlers: Mapping[str, Callable[[str], None]],
        on_connect: Callable[[], Awaitable[None]],
        *,
        on_alive: Callable[[float], None] = lambda _: None,
        on_silence: Callable[[], None] = lambda: None,
        probe_s: float = PROBE_S,
    ) -> None:
        self._database = database
        self._handlers = handlers
        self._on_connect = on_connect
        self._on_alive = on_alive
        self._on_silence = on_silence
        self._probe_s = probe_s
        self._task: asyncio.Task[None] | None = None
        self.connected = asyncio.Event()

    def start(self) -> None:
        """Begin listening in the background."""
        self._task = asyncio.create_task(self._listen_for_ever(), name="listen")

    async def stop(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _listen_for_ever(self) -> None:
        attempt = 0
        rng = random.Random()  # noqa: S311 - jitter
        while True:
            try:
                await self._listen()
            except Unavailable as error:
                attempt += 1
                log.warning("listen_lost", error=error.message, attempt=attempt)
            else:
                attempt = 1
                log.warning("listen_lost", error="connection closed", attempt=attempt)
            self.connected.clear()
            await asyncio.sleep(backoff_s(attempt, base_s=BASE_S, cap_s=CAP_S, rng=rng))

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        connection = await self._database.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            for channel, handler in self._handlers.items():
                await connection.add_listener(
                    channel, lambda _c, _p, _ch, payload, handler=handler: handler(payload)
                )
            await self._on_connect()
            self.connected.set()
            while not lost.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), self._probe_s)
                if not lost.is_set():
                    asked_at = time.monotonic()
                    await self._probe(connection)
                    self._on_alive(asked_at)
        except (OSError, TimeoutError, *DRIVER_ERRORS) as error:
            raise Unavailable(f"database: {error or type(error).__name__}") from error
        finally:
            connection.terminate()

    async def _probe(self, connection: asyncpg.Connection) -> None:
        """Return when the server has said something; raise if it takes no writes any more.

        A primary that has become a standby hears of nothing that is new.
        """
        reply = asyncio.create_task(connection.fetchval(PROBE, timeout=PROBE_TIMEOUT_S))
        try:
            for _ in range(LOOKS):
                if (await asyncio.wait({reply}, timeout=LOOK_S))[0]:
                    break
            else:
                self._on_silence()
                if wants_writes(self._database.dsn):
                    silent = "the primary is silent; there may be another one"
                    await self._database.distrust(silent)
                    raise Unavailable(f"database: {silent}")
            read_only = await reply == "on"
        finally:
            reply.cancel()
        if read_only and wants_writes(self._database.dsn):
            await self._database.distrust("the server takes no writes any more")
            raise Unavailable("database: the server takes no writes any more")
