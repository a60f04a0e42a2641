"""Listening: what is notified arrives, and a listener knows up to when it has missed nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from ragserve.store import listen
from ragserve.store.collections import CHANGED
from ragserve.store.listen import PROBE, Listener
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
            " AND (query LIKE 'LISTEN%' OR query = $1)",
            PROBE,
        )
        await connections.get()
        await listener.connected.wait()
        await database.execute("SELECT pg_notify($1, 'again')", CHANGED)
        assert await heard.get() == "again"
    await listener.stop()


async def test_silence_is_noticed(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the question and says nothing is told from one that is gone."""
    monkeypatch.setattr(listen, "LOOK_S", 0.02)
    events: asyncio.Queue[str] = asyncio.Queue()

    async def connected() -> None:
        events.put_nowait("connected")

    listener = Listener(
        database,
        {CHANGED: events.put_nowait},
        on_connect=connected,
        on_alive=lambda _: events.put_nowait("alive"),
        on_silence=lambda: events.put_nowait("silence"),
        probe_s=0.01,
    )
    listener.start()
    async with asyncio.timeout(30):
        assert [await events.get(), await events.get()] == ["connected", "alive"]
        backend = await database.fetchval(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = $1",
            PROBE,
        )
        os.kill(backend, signal.SIGSTOP)
        try:
            while await events.get() != "silence":
                pass
            assert events.empty()
        finally:
            os.kill(backend, signal.SIGCONT)
        assert await events.get() == "alive"
        assert listener.connected.is_set()
    await listener.stop()
