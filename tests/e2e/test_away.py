"""A server under load whose PostgreSQL is frozen, stopped at once, restarted: with counts."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import own_directory
from tests.e2e.conftest import running
from tests.e2e.outage import Clients
from tests.postgres_pair import Node, postgres_alone

LEAD_S = 0.5
RECOVERY_S = 5.0


def freeze(node: Node) -> Callable[[], None]:
    """Stop its processes where they are; return what ends that."""
    node.freeze()
    return node.thaw


def stop(node: Node) -> Callable[[], None]:
    """End it at once, as pg_ctl stop -m immediate does; return what ends that."""
    node.stop()
    return node.start


def restart(node: Node) -> Callable[[], None]:
    """End it as pg_ctl restart -m fast does; return what completes that."""
    node.stop(signal.SIGINT)
    return node.start


@pytest.mark.parametrize(
    ("away_s", "rounds"), [(2.5, 1), pytest.param(30.0, 5, marks=pytest.mark.nightly)]
)
async def test_postgres_goes_away(
    postgres: str, data_dir: Path, away_s: float, rounds: int
) -> None:
    """What was known is answered throughout, what is new from words; nothing is wrong or lost.

    A document is refused clearly or kept for good, and soon all is as before without a restart.
    """
    assert postgres
    with own_directory() as directory:
        directory.chmod(0o755)
        with postgres_alone(directory) as node:
            async with running(data_dir, "--workers", "1", DATABASE_URL=node.dsn()) as server:
                clients = Clients(server)
                await clients.prepare()
                for _ in range(rounds):
                    await survived(clients, node, freeze, away_s)
                    assert clients.seen["search"]["degraded"] > 0, clients
                    assert clients.seen["query"]["degraded"] > 0, clients
                    assert clients.seen["upload"]["refused 503"] > 0, clients
                    await survived(clients, node, stop, away_s / 2)
                    assert clients.seen["search"]["degraded"] > 0, clients
                    assert clients.seen["upload"]["refused 503"] > 0, clients
                    await survived(clients, node, restart, 0.0)
                assert await clients.missing() == []


async def survived(
    clients: Clients, node: Node, go_away: Callable[[Node], Callable[[], None]], away_s: float
) -> None:
    """Have the database go away for a while under load, and check what the clients saw."""
    clients.forget()
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(clients.load(ended))
        await asyncio.sleep(LEAD_S)
        come_back = await asyncio.to_thread(go_away, node)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(come_back)
        recovered_s = await clients.recover()
        ended.set()
        await loading
    assert recovered_s <= RECOVERY_S, clients
    assert clients.outcomes("search", "query") <= {"right", "degraded"}, clients
    assert clients.outcomes("known") == {"right"}, clients
    assert clients.outcomes("upload") <= {"right", "refused 503"}, clients
