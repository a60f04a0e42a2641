"""`ragserve database`: the embedded PostgreSQL as a process that others share."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.e2e.conftest import STOP_S, environment, ragserve

END_S = 30.0


@contextmanager
def database(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the running process and the DSN that it named."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ragserve", "database"],
        env=environment(data_dir),
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if (event := json.loads(line))["event"] == "database_ready":
                    break
            else:
                pytest.fail("it ended before it was ready")
            yield process, event["dsn"]
        finally:
            process.terminate()
            process.wait(STOP_S)


async def server_pid(dsn: str) -> int:
    """Return the process id of the server, from its data directory."""
    connection = await asyncpg.connect(dsn)
    try:
        directory = await connection.fetchval("SHOW data_directory")
    finally:
        await connection.close()
    return int(Path(directory, "postmaster.pid").read_text(encoding="ascii").split()[0])


async def test_it_serves_until_told_to_stop(data_dir: Path) -> None:
    """Commands come and go, their database stays; SIGTERM ends both processes in order."""
    with database(data_dir) as (process, dsn):
        first = await server_pid(dsn)
        done = ragserve(data_dir, "migrate")
        assert done.returncode == 0, done.stderr
        assert await server_pid(dsn) == first
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


def test_each_user_of_a_host_has_a_server(data_dir: Path, tmp_path: Path) -> None:
    """What another user's server left in the shared temporary directory stops nobody."""
    (tmp_path / ".lockfile").mkdir()  # opened by the wheel; to root no file is another user's
    elsewhere = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "none")}
    done = ragserve(data_dir, "migrate", **elsewhere)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_a_server_that_dies_is_noticed(data_dir: Path) -> None:
    """The process ends with 75 when its server is killed, so that systemd starts it again."""
    with database(data_dir) as (process, dsn):
        os.kill(await server_pid(dsn), signal.SIGKILL)
        assert process.wait(END_S) == 75
        assert process.stderr is not None
        assert "ended by itself" in process.stderr.read()
    with database(data_dir) as (_, dsn):
        assert await server_pid(dsn)
