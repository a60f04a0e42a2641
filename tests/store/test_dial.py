"""Which host of several is connected to, and how long the others are waited for."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from ragserve.store import dial as module
from ragserve.store.dial import dial, hosts_of, role_of, wants_writes

ANYBODY = "target_session_attrs=any"


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p@a/db", [("a", None)]),
        ("postgresql://u:p%40@a,b:5433/db", [("a", None), ("b", 5433)]),
        ("postgresql://[::1],[::2]:5433/db", [("::1", None), ("::2", 5433)]),
        ("postgresql://u@%2Frun%2Fpg/db", [("/run/pg", None)]),
        ("postgresql:///db?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///db?host=a,b&port=1", [("a", 1), ("b", 1)]),
        ("postgresql:///db?host=/run/pg", [("/run/pg", None)]),
        ("postgresql:///db", [("", None)]),
    ],
)
def test_hosts(dsn: str, hosts: list[tuple[str, int | None]]) -> None:
    """All forms of a DSN in which libpq finds hosts."""
    assert hosts_of(dsn) == hosts


@pytest.mark.parametrize(
    ("dsn", "role", "wanted"),
    [
        ("postgresql://u@a/db", {}, False),
        ("postgresql://u@a,b:5433/db", {"target_session_attrs": "read-write"}, True),
        ("postgresql:///db?host=a,b", {"target_session_attrs": "read-write"}, True),
        ("postgresql://u@a,b/db?target_session_attrs=any", {}, False),
        ("postgresql://u@a/db?target_session_attrs=read-write", {}, True),
    ],
)
def test_of_several_hosts_the_primary_is_wanted(
    dsn: str, role: dict[str, str], wanted: bool
) -> None:
    """Unless the DSN says otherwise."""
    assert (role_of(dsn), wants_writes(dsn)) == (role, wanted)


def beside(dsn: str, *ports: int) -> str:
    """Return the DSN of a server on a Unix socket with other hosts before it."""
    parts = urlsplit(dsn)
    directory = parse_qs(parts.query)["host"][0]
    hosts = ",".join(["127.0.0.1"] * len(ports) + [directory])
    numbers = ",".join(str(port) for port in (*ports, 5432))
    user = parts.netloc.rpartition("@")[0]
    return f"postgresql://{user}@{parts.path}?host={hosts}&port={numbers}"


async def test_a_host_that_says_nothing_is_passed_over(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection, and the next one is asked all the same; one that refuses is, too."""
    monkeypatch.setattr(module, "NEXT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        async with asyncio.timeout(30):
            connection = await dial(beside(dsn, 1, port), timeout=10.0)
            assert await connection.fetchval("SELECT current_database()") == dsn_name(dsn)
            await connection.close()
        before = asyncio.all_tasks()
        both = f"postgresql://x@127.0.0.1:{port},127.0.0.1:{port}/x"
        with pytest.raises(TimeoutError):
            await dial(both, timeout=0.2)
        monkeypatch.setattr(module, "LAST_S", 0.05)
        with pytest.raises(TimeoutError, match="2 of 2 hosts say nothing"):
            await dial(both, timeout=60.0)
        async with asyncio.timeout(30):  # no attempt goes on that nobody waits for
            while asyncio.all_tasks() != before:  # noqa: ASYNC110 - they tell nobody
                await asyncio.sleep(0)


async def test_no_host_has_the_role(dsn: str) -> None:
    """A server that takes no writes is not taken for the primary, and that is said."""
    read_only = "&options=-c%20default_transaction_read_only%3Don"
    with pytest.raises(asyncpg.InternalClientError, match="read-write"):
        await dial(beside(dsn, 1) + read_only, timeout=10.0)


def dsn_name(dsn: str) -> str:
    return urlsplit(dsn).path.removeprefix("/")
