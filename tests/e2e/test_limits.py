"""Limits of two hosts with two workers each, on one Redis that is killed in between."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.conftest import ServerProcess, running
from tests.redis_server import RedisServer, redis_server

HOSTS, WORKERS = 2, 2
GREEDY_PER_S = 12.0
AWAY_S = 3.0
QUESTION = {"query": "when is lunch"}
DOCUMENT = {"id": "a", "text": "Lunch is at noon."}


class Client:
    """Asks ``per_s`` times a second, each time over a new connection to either host."""

    def __init__(self, per_s: float, forwarded_for: Callable[[random.Random], str]) -> None:
        self.per_s = per_s
        self.statuses: Counter[int] = Counter()
        self._forwarded_for = forwarded_for
        self._rng = random.Random(per_s)

    async def run(self, servers: list[ServerProcess], seconds: float) -> None:
        """Ask for so long, whatever is answered."""
        connector = aiohttp.TCPConnector(force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            asyncio.TaskGroup() as group,
        ):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                url = self._rng.choice(servers).url
                group.create_task(self._ask(session, url))
                await asyncio.sleep(self._rng.expovariate(self.per_s))

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> None:
        headers = {"X-Forwarded-For": self._forwarded_for(self._rng)}
        async with session.post(f"{url}/v1/query", json=QUESTION, headers=headers) as response:
            await response.read()
            self.statuses[response.status] += 1
            if response.status == 429:
                assert int(response.headers["Retry-After"]) >= 1


def clients() -> dict[str, Client]:
    """Return three who ask too much, two of them under many addresses, and a modest one."""
    return {
        "plain": Client(GREEDY_PER_S, lambda _: "203.0.113.7"),
        "forged": Client(GREEDY_PER_S, lambda rng: f"198.51.100.{rng.randrange(256)}, 203.0.113.8"),
        "network": Client(
            GREEDY_PER_S, lambda rng: f"2001:db8:0:1:{rng.randrange(65536):x}::{rng.randrange(99)}"
        ),
        "modest": Client(0.5, lambda _: "203.0.113.9"),
    }


@pytest.mark.parametrize(
    ("seconds", "per_minute"),
    [pytest.param(20.0, 60), pytest.param(600.0, 300, marks=pytest.mark.nightly)],
)
async def test_what_all_workers_admit(
    data_dir: Path, dsn: str, seconds: float, per_minute: int
) -> None:
    """Nobody gets more than burst + rate × time + workers × lease, Redis there, away or empty."""
    with redis_server() as redis:
        settings = {
            "DATABASE_URL": dsn,
            "REDIS_URL": redis.url,
            "RAGSERVE_AUTH__ALLOW_ANONYMOUS": "true",
            "RAGSERVE_RATE__QUERY_PER_MINUTE": str(per_minute),
            "RAGSERVE_SERVER__TRUSTED_PROXIES": "127.0.0.0/8",
            "RAGSERVE_SERVER__HOSTS": str(HOSTS),
            "RAGSERVE_LOG__ACCESS": "false",
        }
        workers = ("--workers", str(WORKERS))
        async with (
            running(data_dir / "one", *workers, **settings) as one,
            running(data_dir / "two", *workers, **settings) as two,
        ):
            status, _ = await one.call("POST", "/v1/documents?wait=30", DOCUMENT)
            assert status == 200
            asking = clients()
            start = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for client in asking.values():
                    group.create_task(client.run([one, two], seconds))
                group.create_task(_killed_in_between(redis, seconds))
            taken_s = time.monotonic() - start
    lease = max(1, round(per_minute / 60 * 0.1 / (HOSTS * WORKERS)))
    most = per_minute + per_minute / 60 * taken_s + HOSTS * WORKERS * lease
    print(f"{taken_s:.1f} s, at most {most:.0f} each")  # noqa: T201 - counts, for -s
    for name, client in asking.items():
        print(f"{name}: {dict(client.statuses)}")  # noqa: T201
        assert set(client.statuses) <= {200, 429}
    assert set(asking["modest"].statuses) == {200}
    for name in ("plain", "forged", "network"):
        admitted = asking[name].statuses[200]
        assert 0.9 * most <= admitted <= most, (name, admitted, most)


async def _killed_in_between(redis: RedisServer, seconds: float) -> None:
    """Kill Redis after half of the time; start it again, empty."""
    await asyncio.sleep(seconds / 2)
    await asyncio.to_thread(redis.kill)
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(redis.start)
