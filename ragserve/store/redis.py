"""Redis: an optional helper that may fail at any time without anybody having to wait for it.

Every call has a deadline of some tens of milliseconds. A request makes several, so after one that
was too late nobody calls for a moment: a slow server costs a request one deadline, not one a call.
After a few failures in a row nobody calls until a probe in the background has found the server
back. A call that is cancelled or too late costs its connection: the reply that is still to come
must not answer somebody else's question.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import structlog
from redis.asyncio import Redis as Single
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ragserve.config import RedisConfig
from ragserve.errors import ConfigurationError, Unavailable
from ragserve.flow.breaker import Breaker

log = structlog.get_logger(__name__)

T = TypeVar("T")
Client = Single | RedisCluster

PAUSE_S = 0.1
"""Nobody calls for so long after a call that was too late."""
PROBE_S = 1.0
"""A probe, and the first connection, may take so long: nobody waits for them."""
SCHEMES = (
    "redis://, rediss://, unix://, redis+cluster://HOST:PORT,HOST:PORT "
    "or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"
)


class Redis:
    """A client with a breaker. ``open`` before use, ``close`` after."""

    def __init__(self, config: RedisConfig) -> None:
        self.client = client_of(config)
        self._config = config
        self._breaker = Breaker()
        self._recovering: asyncio.Task[None] | None = None
        self._pause_until = float("-inf")
        # The pool raises where it could wait.
        self._free = asyncio.Semaphore(config.connections)

    @property
    def reachable(self) -> bool:
        """Return whether it is worth while to call."""
        return self._breaker.state == "closed"

    async def open(self) -> None:
        """Connect; a server that is not there is waited for in the background."""
        try:
            await self.ping()
        except Unavailable as error:
            log.warning("redis_absent", error=error.message)
            self._breaker.trip(time.monotonic())
            self._recover_soon()

    async def call(self, use: Callable[[Any], Awaitable[T]]) -> T:
        """Return what ``use`` gets from the client; raise ``Unavailable`` in time."""
        if not self.reachable:
            raise Unavailable("redis: left alone after failures; it is being probed")
        if time.monotonic() < self._pause_until:
            raise Unavailable("redis: left alone for a moment, its last answer was too late")
        try:
            async with asyncio.timeout(self._config.timeout_ms / 1000), self._free:
                result = await use(self.client)
        except TimeoutError as error:
            self._pause_until = time.monotonic() + PAUSE_S
            self._note_failure()
            raise Unavailable(
                f"redis: no answer within redis.timeout_ms = {self._config.timeout_ms}"
            ) from error
        except (RedisError, OSError) as error:
            self._note_failure()
            raise Unavailable(f"redis: {error or type(error).__name__}") from error
        self._breaker.succeeded()
        return result

    async def ping(self) -> None:
        """Raise ``Unavailable`` unless the server answers, whatever the breaker says."""
        try:
            async with asyncio.timeout(PROBE_S):
                await self.client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"redis: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._recovering is not None:
            self._recovering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recovering
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(PROBE_S):
                for client in (self.client, *_sentinels(self.client)):
                    await client.aclose()

    def _note_failure(self) -> None:
        self._breaker.failed(time.monotonic())
        self._recover_soon()

    def _recover_soon(self) -> None:
        if self._breaker.state == "open" and self._recovering is None:
            # In a context of its own: what is logged there is of no request.
            self._recovering = asyncio.create_task(
                self._recover(), name="redis probe", context=contextvars.Context()
            )

    async def _recover(self) -> None:
        """Probe until the server is back."""
        log.warning("redis_left_alone")
        while self._breaker.state != "closed":
            await asyncio.sleep(max(0.0, self._breaker.retry_at - time.monotonic()))
            if not self._breaker.try_pass(time.monotonic()):
                continue
            try:
                await self.ping()
            except Unavailable:
                self._breaker.failed(time.monotonic())
            else:
                self._breaker.succeeded()
        self._recovering = None
        log.info("redis_is_back")

    def __repr__(self) -> str:
        return f"<Redis {self._breaker!r}>"


def _sentinels(client: Client) -> Sequence[Single]:
    """Return the clients of the sentinels that ``client`` asks for its server; it leaves them."""
    pool = getattr(client, "connection_pool", None)
    return pool.sentinel_manager.sentinels if isinstance(pool, SentinelConnectionPool) else ()


def client_of(config: RedisConfig) -> Client:
    """Return a client for ``redis.url``; it connects when it is used."""
    scheme, _, rest = config.url.partition("://")
    base, _, kind = scheme.partition("+")
    options: dict[str, Any] = {
        "max_connections": config.connections,
        # The deadline of a call is one for all it does; a retry would only exceed it.
        "socket_timeout": None,
        "socket_connect_timeout": PROBE_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        if not kind and base in ("redis", "rediss", "unix"):
            return Single.from_url(config.url, **options)
        if kind in ("cluster", "sentinel") and base in ("redis", "rediss"):
            return _of_several(base, kind, rest, options)
    except (ValueError, IndexError) as error:
        raise ConfigurationError(f"redis.url: {error}; use {SCHEMES}") from error
    raise ConfigurationError(f"redis.url: scheme {scheme!r} is not one of {SCHEMES}")


def _of_several(base: str, kind: str, rest: str, options: dict[str, Any]) -> Client:
    place, _, path = rest.partition("/")
    login, _, hosts = place.rpartition("@")
    addresses = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError(f"no host in {host!r}")
        addresses.append((parts.hostname, parts.port or (26379 if kind == "sentinel" else 6379)))
    user, _, password = login.partition(":")
    options |= {"username": unquote(user) or None, "password": unquote(password) or None}
    options["ssl"] = base == "rediss"
    if kind == "cluster":
        nodes = [ClusterNode(*address) for address in addresses]
        # Once more: the first failure is how it learns that a node has moved.
        options["retry"] = Retry(NoBackoff(), 1)
        return RedisCluster(startup_nodes=nodes, **options)
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("a sentinel's URL ends with /SERVICE")
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        addresses, sentinel_kwargs={"socket_connect_timeout": PROBE_S}
    )
    client: Single = sentinel.master_for(service, db=int(database or 0), **options)
    return client
