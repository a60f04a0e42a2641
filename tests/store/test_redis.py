"""Redis as a helper: in time or not at all, and never somebody else's reply."""

from __future__ import annotations

import asyncio
import random
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio.cluster import RedisCluster

from ragserve.config import RedisConfig
from ragserve.errors import ConfigurationError, Unavailable
from ragserve.log import REQUEST_ID
from ragserve.store.redis import PAUSE_S, Redis, client_of
from tests.proxy import Proxy, running
from tests.redis_server import RedisServer, redis_cluster, redis_server

PATIENT_MS = 10_000.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@asynccontextmanager
async def opened(url: str, timeout_ms: float = PATIENT_MS) -> AsyncIterator[Redis]:
    client = Redis(RedisConfig(url=url, timeout_ms=timeout_ms, connections=4))
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def fail_until_left_alone(client: Redis) -> None:
    """Make calls until nobody calls any more: three."""
    for _ in range(3):
        with pytest.raises(Unavailable):
            await client.call(lambda redis: redis.get("a"))
        await asyncio.sleep(PAUSE_S)
    with pytest.raises(Unavailable, match="left alone"):
        await client.call(lambda redis: redis.get("a"))


async def recovered(client: Redis) -> None:
    """Wait until the probe has found the server."""
    assert client._recovering is not None
    await asyncio.wait_for(client._recovering, 60)


async def test_a_killed_server_is_left_alone_and_found_again(server: RedisServer) -> None:
    """Calls fail at once, then are not made, and work again without a restart of ours."""
    async with opened(server.url) as client:
        await client.call(lambda redis: redis.set("a", "1"))
        assert await client.call(lambda redis: redis.get("a")) == b"1"
        server.kill()
        await fail_until_left_alone(client)
        server.start()
        await recovered(client)
        assert await client.call(lambda redis: redis.get("a")) is None


async def test_the_probe_is_of_no_request(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is logged when the server is back does not bear the id of a request that failed."""
    seen: list[str | None] = []
    async with opened(server.url) as client:
        ping = client.ping

        async def noting() -> None:
            seen.append(REQUEST_ID.get(None))
            await ping()

        monkeypatch.setattr(client, "ping", noting)
        token = REQUEST_ID.set("failing")
        server.kill()
        await fail_until_left_alone(client)
        REQUEST_ID.reset(token)
        server.start()
        await recovered(client)
    assert set(seen) == {None}


async def test_a_frozen_server_costs_its_deadline_only(server: RedisServer) -> None:
    """A server that takes requests and does not answer is as good as none."""
    async with opened(server.url, timeout_ms=50.0) as client:
        server.send(signal.SIGSTOP)
        try:
            await fail_until_left_alone(client)
        finally:
            server.send(signal.SIGCONT)
        await recovered(client)
        assert repr(client) == "<Redis <Breaker closed, 0 failures in a row>>"


async def test_a_late_answer_costs_one_deadline_for_a_moment(server: RedisServer) -> None:
    """The second of two calls does not wait; after the moment it is served."""
    async with opened(server.url, timeout_ms=50.0) as client:
        server.send(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="no answer within"):
                await client.call(lambda redis: redis.get("a"))
            with pytest.raises(Unavailable, match="for a moment"):
                await client.call(lambda redis: redis.get("a"))
        finally:
            server.send(signal.SIGCONT)
        assert client.reachable
        await asyncio.sleep(PAUSE_S)
        assert await client.call(lambda redis: redis.get("a")) is None


async def test_an_absent_server_does_not_prevent_a_start() -> None:
    """Opening warns; calls fail without waiting; the server is found when it comes."""
    with redis_server() as server:
        server.kill()
        async with opened(server.url) as client:
            with pytest.raises(Unavailable, match="left alone"):
                await client.call(lambda redis: redis.get("a"))
            server.start()
            await recovered(client)
            assert await client.call(lambda redis: redis.get("a")) is None


@pytest.mark.parametrize("rounds", [100, pytest.param(100_000, marks=pytest.mark.nightly)])
async def test_cancelled_calls_leave_no_reply_behind(server: RedisServer, rounds: int) -> None:
    """Ten of twenty calls are cancelled at any moment, the others get their own replies."""
    rng = random.Random(3)
    async with opened(server.url) as client:
        await client.call(lambda redis: redis.mset({str(n): f"value {n}" for n in range(100)}))

        async def read(number: int) -> None:
            async def use(redis: Any) -> list[bytes]:
                pipeline = redis.pipeline(transaction=False)
                pipeline.get(str(number)).get(str((number + 1) % 100))
                return await pipeline.execute()  # type: ignore[no-any-return]

            expected = [f"value {number}".encode(), f"value {(number + 1) % 100}".encode()]
            assert await client.call(use) == expected

        for _ in range(rounds):
            tasks = [asyncio.create_task(read(rng.randrange(100))) for _ in range(20)]
            for task in rng.sample(tasks, 10):
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(
                result is None or isinstance(result, asyncio.CancelledError) for result in results
            ), results


class Cutting(Proxy):
    """A proxy that resets a connection after so many bytes of a reply, if told to."""

    left: int | None = None

    async def reply(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data[: self.left])
        if self.left is not None:
            await writer.drain()
            end = writer.get_extra_info("socket")
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def test_a_reply_that_is_cut_is_no_reply(server: RedisServer) -> None:
    """Reset after any byte of it, a reply is an error, and the next call gets its own."""
    value = b"a\r\n$1\r\nb\r\n"  # in which there are whole replies
    reply = b"$%d\r\n%b\r\n" % (len(value), value)
    async with (
        running(Cutting(server.port)) as proxy,
        opened(f"redis://127.0.0.1:{proxy.port}") as client,
    ):
        await client.call(lambda redis: redis.set("a", value))
        for passed in range(len(reply)):
            proxy.left = passed
            with pytest.raises(Unavailable):
                await client.call(lambda redis: redis.get("a"))
            proxy.left = None
            assert await client.call(lambda redis: redis.get("a")) == value


async def test_more_calls_than_connections_wait(server: RedisServer) -> None:
    """The pool's bound makes calls wait, not fail."""
    async with opened(server.url) as client:
        calls = [client.call(lambda redis: redis.incr("count")) for _ in range(100)]
        assert sorted(await asyncio.gather(*calls)) == list(range(1, 101))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "redis+cluster://",
        "redis+sentinel://127.0.0.1:26379",
        "redis+other://127.0.0.1",
        "redis://127.0.0.1:port",
        "127.0.0.1:6379",
    ],
)
async def test_an_unusable_url_is_an_error_that_names_the_setting(url: str) -> None:
    """What can be used is said, too."""
    with pytest.raises(ConfigurationError, match=r"redis\.url.*redis\+cluster"):
        client_of(RedisConfig(url=url))


async def test_sentinels_name_the_master(server: RedisServer) -> None:
    """redis+sentinel://HOST:PORT/SERVICE/DATABASE asks a sentinel where to go."""
    with redis_server("--sentinel") as sentinel:
        async with opened(sentinel.url) as asking:
            await asking.client.execute_command(
                "SENTINEL", "MONITOR", "main", "127.0.0.1", server.port, 1
            )
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/2"
        async with opened(url) as client, opened(f"{server.url[:-1]}2") as direct:
            await client.call(lambda redis: redis.set("a", "1"))
            assert await direct.call(lambda redis: redis.get("a")) == b"1"


async def test_a_cluster_is_one_server() -> None:
    """redis+cluster://HOST:PORT,… finds all nodes; a pipeline may go to several of them."""
    with redis_cluster() as servers:
        addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers[:2])
        async with opened(f"redis+cluster://{addresses}") as client:
            assert isinstance(client.client, RedisCluster)

            async def write_and_read(redis: Any) -> list[bytes]:
                pipeline = redis.pipeline(transaction=False)
                for number in range(50):
                    pipeline.set(f"key {number}", number)
                await pipeline.execute()
                pipeline = redis.pipeline(transaction=False)
                for number in range(50):
                    pipeline.get(f"key {number}")
                return await pipeline.execute()  # type: ignore[no-any-return]

            expected = [str(number).encode() for number in range(50)]
            assert await client.call(write_and_read) == expected
