"""Processes that see each other: real sockets, one of them deaf."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from ragserve.host.members import enter, members, this_process
from ragserve.host.overview import host_metrics, look_around
from ragserve.host.presence import Presence, address
from ragserve.host.totals import Families


def present(directory: Path, name: str, listener: socket.socket | None = None) -> Presence:
    """Return a process of that name; they all are this one."""
    return Presence(directory, this_process(name, {}), lambda: "ready", listener)


def up(families: Families) -> dict[str, float]:
    """Return the values of ragserve_worker_up."""
    (family,) = (family for family in families if family.name == "ragserve_worker_up")
    return {dict(sample.labels)["worker"]: sample.value for sample in family.samples}


async def test_everybody_sees_everybody(tmp_path: Path) -> None:
    """Each process sees all, itself included, workers first; one that left is not there."""
    async with AsyncExitStack() as stack:
        processes = [present(tmp_path, name) for name in ("ingester", "1", "0")]
        for process in processes:
            await stack.enter_async_context(process.entered())
        async with present(tmp_path, "2").entered():
            pass
        for own in (*processes, None):
            seen = await look_around(tmp_path, "state", own)
            assert [one.label for one in seen] == ["0", "1", "ingester"]
            assert all(one.state and one.state.phase == "ready" for one in seen)
        assert up(await host_metrics(processes[0])) == {"0": 1.0, "1": 1.0, "ingester": 1.0}


async def test_a_process_that_hangs_is_down(tmp_path: Path) -> None:
    """One that takes the connection and says nothing is 0; the others are not affected."""
    hung = this_process("1", {})
    with enter(tmp_path, hung), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        with address(tmp_path, hung) as name:
            deaf.bind(name)
        deaf.listen()
        own = present(tmp_path, "0")
        async with own.entered(), asyncio.timeout(30):
            assert up(await host_metrics(own)) == {"0": 1.0, "1": 0.0}
            seen = await look_around(tmp_path, "state", own)
    assert [(one.label, one.state is None) for one in seen] == [("0", False), ("1", True)]


async def test_a_process_that_says_nothing_is_hung_up_on(tmp_path: Path) -> None:
    """A client that connects and asks nothing is let go; others are answered meanwhile."""
    own = present(tmp_path, "0")
    async with own.entered(), asyncio.timeout(30):
        silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        silent.setblocking(False)
        with silent:
            with address(tmp_path, own.identity) as name:
                silent.connect(name)
            (seen,) = await look_around(tmp_path, "state")
            assert seen.state is not None
            assert await asyncio.get_running_loop().sock_recv(silent, 1) == b""


async def test_the_listener_travels(tmp_path: Path) -> None:
    """Who asks for it gets a duplicate of the listening socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = present(tmp_path, "0", listener)
        async with own.entered(), asyncio.timeout(30):

            def ask() -> socket.socket:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                    with address(tmp_path, own.identity) as name:
                        connection.connect(name)
                    connection.sendall(b"listener")
                    _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
                    return socket.socket(fileno=fds[0])

            with await asyncio.to_thread(ask) as adopted:
                assert adopted.fileno() != listener.fileno()
                assert adopted.getsockname() == listener.getsockname()


async def test_the_path_may_be_long(tmp_path: Path) -> None:
    """A run directory deeper than a socket's address can say is no obstacle."""
    deep = tmp_path / ("d" * 120)
    async with present(deep, "0").entered():
        (seen,) = await look_around(deep, "state")
    assert seen.state is not None
    living, dead = members(deep)
    assert (living, [one.pid for one in dead]) == ([], [os.getpid()])
