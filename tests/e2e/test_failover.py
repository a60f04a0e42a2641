"""A server under load whose primary goes away and whose standby takes over: what clients see."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.conftest import own_directory
from tests.e2e.conftest import running
from tests.e2e.outage import Clients
from tests.postgres_pair import Node, postgres_pair

LEAD_S = 0.5
AWAY_S = 2.5
"""Longer than it takes to notice that a primary is silent."""
RECOVERY_S = 5.0


Leave = Callable[[Node, Node], None]


def die(first: Node, _second: Node) -> None:
    """End it as a crash would."""
    first.stop()


def step_down(first: Node, second: Node) -> None:
    """Become the other one's standby, reachable: for a while there is no primary at all."""
    first.stop(signal.SIGINT)
    first.follow(second)
    first.start()


def freeze(first: Node, _second: Node) -> None:
    """Stop where it is, for good: it takes connections and says nothing."""
    first.freeze()


@pytest.mark.parametrize("leave", [die, step_down, freeze])
async def test_a_failover_under_load(postgres: str, data_dir: Path, leave: Leave) -> None:
    """Right, degraded or clearly refused; none wrong, none lost; writes resume within seconds."""
    assert postgres
    with own_directory() as directory:
        directory.chmod(0o755)
        with postgres_pair(directory) as (first, second):
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
            dsn = f"postgresql://postgres@{hosts}/postgres"
            async with running(data_dir, "--workers", "1", DATABASE_URL=dsn) as server:
                clients = Clients(server)
                await clients.prepare()
                await wait_for_the_standby(first)
                ended = asyncio.Event()
                async with asyncio.TaskGroup() as group:
                    loading = group.create_task(clients.load(ended))
                    await asyncio.sleep(LEAD_S)
                    await asyncio.to_thread(leave, first, second)
                    await asyncio.sleep(AWAY_S)
                    await asyncio.to_thread(second.promote)
                    recovered_s = await clients.recover()
                    ended.set()
                    await loading
                assert recovered_s <= RECOVERY_S, clients
                assert clients.outcomes("search", "query") == {"right", "degraded"}, clients
                assert clients.outcomes("known") == {"right"}, clients
                assert clients.outcomes("upload") == {"right", "refused 503"}, clients
                assert await clients.missing() == []
                if leave is step_down:
                    assert await is_standby(first)
                clients.forget()
                await clients.recover()
                assert clients.outcomes("search", "upload") == {"right"}, clients


async def wait_for_the_standby(primary: Node) -> None:
    """Have each commit wait until the standby has it, so that none can be lost with the primary."""
    connection = await asyncpg.connect(primary.dsn())
    try:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(30):
            state = "SELECT sync_state FROM pg_stat_replication"
            while await connection.fetchval(state) != "sync":  # noqa: ASYNC110 - no signal
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def is_standby(node: Node) -> bool:
    connection = await asyncpg.connect(node.dsn())
    try:
        return bool(await connection.fetchval("SELECT pg_is_in_recovery()"))
    finally:
        await connection.close()
