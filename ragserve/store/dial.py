"""Connecting to whichever of a DSN's hosts will do, be others frozen or out of reach.

asyncpg asks one host after another, and waits for each as long as for all together: one that takes
the connection and says nothing keeps it from the next. Here the next is asked, too, when the one
before has not answered in a moment (as RFC 8305 does with addresses), and the first that will do
counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

NEXT_S = 0.5
"""A host that has not answered by then is asked no longer alone."""
LAST_S = 2.0
"""When all have been asked, those that have said nothing get so long. Then the caller has to ask
again: another one may have become the primary meanwhile."""
DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What a connection raises; the last one if no host has the role that is wanted."""
UNREACHABLE = (OSError, TimeoutError, ValueError, *DRIVER_ERRORS)
"""What ``dial`` raises."""

Host = tuple[str, int | None]


async def dial(dsn: str, *, timeout: float, **options: Any) -> asyncpg.Connection:  # noqa: ASYNC109
    """Return a connection that may take ``timeout`` seconds; ``options`` are asyncpg's.

    It stands in for ``asyncpg.connect`` in asyncpg's pools, too.
    """
    options = {**role_of(dsn), **options}
    hosts = hosts_of(dsn)
    if len(hosts) < 2:
        return await asyncpg.connect(dsn, timeout=timeout, **options)
    async with asyncio.timeout(timeout):
        return await _first(dsn, hosts, options)


async def _first(dsn: str, hosts: Sequence[Host], options: dict[str, Any]) -> asyncpg.Connection:
    """Return the first connection that comes about; raise what the last host to fail raised.

    Raises ``TimeoutError`` if some have not failed, but said nothing.
    """
    left = list(hosts)
    asked: set[asyncio.Task[asyncpg.Connection]] = set()
    try:
        while True:
            if left:
                host, port = left.pop(0)
                asking = asyncpg.connect(dsn, host=host, port=port, timeout=None, **options)
                asked.add(asyncio.create_task(asking))
            done, _ = await asyncio.wait(
                asked, timeout=NEXT_S if left else LAST_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done and not left:
                raise TimeoutError(f"{len(asked)} of {len(hosts)} hosts say nothing")
            for task in done:
                asked.discard(task)
                if task.exception() is None or not (asked or left):
                    return task.result()
    finally:
        for task in asked:
            task.cancel()
            task.add_done_callback(_hang_up)


def _hang_up(task: asyncio.Task[asyncpg.Connection]) -> None:
    """End a connection that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().terminate()


def hosts_of(dsn: str) -> list[Host]:
    """Return the hosts that a DSN names, with their ports where it names those, too."""
    parts = urlsplit(dsn)
    named = parts.netloc.rpartition("@")[2]
    if named:
        return [_host(one) for one in named.split(",")]
    query = parse_qs(parts.query)
    names = query.get("host", [""])[-1].split(",")
    ports = query.get("port", [""])[-1].split(",")
    if len(ports) < len(names):
        ports *= len(names)  # one for all of them
    return [(name, int(port) if port else None) for name, port in zip(names, ports, strict=False)]


def _host(text: str) -> Host:
    name, colon, port = text.rpartition(":")
    if not colon or "]" in port:  # an IPv6 address without a port
        name, port = text, ""
    return unquote(name).strip("[]"), int(port) if port else None


def role_of(dsn: str) -> dict[str, str]:
    """Return the role to look for: of several hosts the one that takes writes, unless it says."""
    if len(hosts_of(dsn)) > 1 and "target_session_attrs" not in dsn:
        return {"target_session_attrs": "read-write"}
    return {}


def wants_writes(dsn: str) -> bool:
    """Return whether a server that takes no writes is the wrong one, and another may be right."""
    return bool(role_of(dsn)) or "target_session_attrs=read-write" in dsn
