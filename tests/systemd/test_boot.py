"""systemd as the supervisor: real units on a real systemd, asked over a real socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.systemd.host import Host, booted, launcher, ragserve_mounts, unsupported

UNITS = Path(__file__).parents[2] / "systemd"
PORT_DROP_IN = """
[Socket]
ListenStream=
ListenStream=127.0.0.1:{port}
ListenStream=/run/ragserve/worker-%i.sock
"""
ASK_THE_OWN_SOCKET = """
import socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/run/ragserve/worker-0.sock")
    client.sendall(b"GET /ready HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    print(client.recv(100).decode().partition("\\r")[0])
"""
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else gets; what does not listen takes no connections from who does."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


DATABASE = """
[Service]
User=ragserve
StateDirectory=postgres
ExecStart=/opt/ragserve/bin/python /opt/ragserve/database.py
"""
DATABASE_PROGRAM = """
import pathlib, signal
from ragserve.store.embedded import EmbeddedPostgres
EmbeddedPostgres(pathlib.Path("/var/lib/postgres")).acquire()
signal.pause()
"""
DATABASE_URL = "postgresql://postgres:@/postgres?host=/var/lib/postgres/postgres"
DATABASE_READY = "until [ -S /var/lib/postgres/postgres/.s.PGSQL.5432 ]; do sleep 0.1; done"


@pytest.fixture
def host(port: int, tmp_path: Path) -> Iterator[Host]:
    """A host on which ragserve is installed and configured, and nothing started."""
    if reason := unsupported():
        pytest.skip(f"a host with systemd: {reason}")
    (tmp_path / "root").mkdir()
    with booted(tmp_path / "root", ragserve_mounts()) as host:
        host.write("/opt/ragserve/bin/python", launcher())
        program = '#!/bin/sh\nexec /opt/ragserve/bin/python -m ragserve "$@"\n'
        host.write("/opt/ragserve/bin/ragserve", program)
        host.run("chmod", "-R", "755", "/opt/ragserve/bin")
        host.run("useradd", "--system", "--user-group", "ragserve")
        for unit in UNITS.iterdir():
            host.write(f"/etc/systemd/system/{unit.name}", unit.read_text(encoding="utf-8"))
        drop_in = "/etc/systemd/system/ragserve@.socket.d/port.conf"
        host.write(drop_in, PORT_DROP_IN.format(port=port))
        host.write("/etc/ragserve/environment", "RAGSERVE_EMBEDDING__PROVIDER=hashing\n")
        host.write("/etc/ragserve/credentials/DATABASE_URL", DATABASE_URL)
        host.write("/opt/ragserve/database.py", DATABASE_PROGRAM)
        host.write("/etc/systemd/system/postgresql.service", DATABASE)
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "start", "postgresql")
        host.run("timeout", "60", "sh", "-c", DATABASE_READY)
        yield host


def pid_of(host: Host, unit: str) -> int:
    """Return the main process of a unit, as the host counts."""
    return int(host.run("systemctl", "show", "-p", "MainPID", "--value", unit))


async def ask(url: str, path: str = "/v1/collections") -> int:
    """Ask over a connection of its own; return the status."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(url + path) as response,
    ):
        await response.read()
        return response.status


async def under_load(url: str, *commands: list[str], host: Host) -> list[int]:
    """Return the statuses that eight clients get while ``commands`` run."""
    statuses: list[int] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            statuses.append(await ask(url))

    async with asyncio.TaskGroup() as clients:
        for _ in range(8):
            clients.create_task(client())
        for command in commands:
            await asyncio.to_thread(host.run, *command)
        stop.set()
    return statuses


async def test_systemd_runs_workers(host: Host, port: int) -> None:
    """Start, status, restart and reload of an instance, and the target: no client is refused."""
    url = f"http://127.0.0.1:{port}"
    host.run("systemctl", "start", "ragserve@0")
    assert await ask(url, "/health") == 200
    status = host.run("systemctl", "status", "ragserve@0")
    assert "active (running)" in status
    assert "worker_ready" in status
    first = pid_of(host, "ragserve@0")
    assert host.run("taskset", "-cp", str(first)).endswith(f": {CORES[0]}\n") or CORES[0] != 0

    threads = host.run("ps", "-L", "-o", "cls=,ni=", "-p", str(first)).split("\n")
    assert "  B  10" in threads, "the model's thread steps back"

    mode = host.run("stat", "-c", "%a %U %G", "/run/ragserve/worker-0.sock")
    assert mode == "660 ragserve ragserve\n"
    said = host.run("/opt/ragserve/bin/python", "-c", ASK_THE_OWN_SOCKET)
    assert said == "HTTP/1.1 200 OK\n"

    statuses = await under_load(url, ["systemctl", "restart", "ragserve@0"], host=host)
    assert set(statuses) == {200}
    second = pid_of(host, "ragserve@0")
    assert second != first

    ready = ["timeout", "30", "sh", "-c", READY_AGAIN]
    statuses = await under_load(url, ["systemctl", "reload", "ragserve@0"], ready, host=host)
    assert set(statuses) == {200}
    assert pid_of(host, "ragserve@0") == second

    host.run("systemctl", "enable", "ragserve@0", "ragserve-ingest")
    host.run("systemctl", "stop", "ragserve@0")
    host.run("systemctl", "start", "ragserve.target")
    for unit in ("ragserve@0.service", "ragserve@0.socket", "ragserve-ingest.service"):
        assert host.run("systemctl", "is-active", unit) == "active\n"
    assert await ask(url, "/health") == 200
    policy = host.run("chrt", "-p", str(pid_of(host, "ragserve-ingest")))
    assert "SCHED_IDLE" in policy


READY_AGAIN = """
until [ "$(journalctl -o cat -u ragserve@0 | grep -c worker_ready)" = 3 ]; do sleep 0.1; done
until [ "$(systemctl is-active ragserve@0)" = active ]; do sleep 0.1; done
"""
