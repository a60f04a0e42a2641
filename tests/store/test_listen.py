"""Listening: what is notified arrives, and a listener knows up to when it has missed nothing."""

from __future__ import annotations

import asyncio
import time

from ragserve.store.collections import CHANGED
from ragserve.store.listen import Listener
from ragserve.store.pool import Database


async def test_a_sign_of_life_comes_after_what_was_notified_before_it(database: Database) -> None:
    """Whoever hears that all is known up to a time has heard all that was committed before."""
    heard: list[str] = []
    alive: asyncio.Queue[float] = asyncio.Queue()

    async def connected() -> None:
        heard.append("connected")

    listener = Listener(
        database,
        {CHANGED: heard.append},
        on_connect=connected,
        on_alive=alive.put_nowait,
        probe_s=0.01,
    )
    listener.start()
    async with asyncio.timeout(30):
        await listener.connected.wait()
        for number in range(20):
            await database.execute("SELECT pg_notify($1, $2)", CHANGED, str(number))
            committed_at = time.monotonic()
            while await alive.get() < committed_at:
                pass
            assert heard == ["connected", *map(str, range(number + 1))]
    await listener.stop()


async def test_a_lost_connection_comes_back(database: Database) -> None:
    """It listens again by itself, and says so, for something may have been missed."""
    connections: asyncio.Queue[None] = asyncio.Queue()

    async def connected() -> None:
        connections.put_nowait(None)

    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = Listener(database, {CHANGED: heard.put_nowait}, on_connect=connected, probe_s=0.01)
    listener.start()
    async with asyncio.timeout(30):
        await connections.get()
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')"
        )
        await connections.get()
        await listener.connected.wait()
        await database.execute("SELECT pg_notify($1, 'again')", CHANGED)
        assert await heard.get() == "again"
    await listener.stop()
