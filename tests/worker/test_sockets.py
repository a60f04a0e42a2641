"""A worker's listening sockets: given, or its own."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from ragserve.config import ServerConfig
from ragserve.errors import ConfigurationError
from ragserve.host.sockets import bind_own
from ragserve.worker.sockets import listening_sockets
from tests.conftest import own_directory

FREE_FD = 900


def test_a_worker_binds_the_shared_port_and_a_socket_of_its_own() -> None:
    """The second is named after the worker, and for its user and group only."""
    with own_directory() as directory:
        server = ServerConfig(port=0, sockets_dir=str(directory / "new"))
        shared, own = listening_sockets({"RAGSERVE_WORKER": "3"}, server)
        with shared, own, socket.socket(socket.AF_UNIX) as client:
            path = directory / "new" / "worker-3.sock"
            client.connect(str(path))
            accepted, _ = own.accept()
            accepted.close()
            assert shared.family == socket.AF_INET
            assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_successor_replaces_a_socket_without_a_gap() -> None:
    """Who waits in the old one stays there; who comes gets the new one."""
    with (
        own_directory() as directory,
        bind_own(str(directory), 0, 8) as old,
        socket.socket(socket.AF_UNIX) as early,
        socket.socket(socket.AF_UNIX) as late,
    ):
        path = str(directory / "worker-0.sock")
        early.connect(path)
        with bind_own(str(directory), 0, 8) as new:
            late.connect(path)
            for listener in (old, new):
                accepted, _ = listener.accept()
                accepted.close()
            assert [entry.name for entry in directory.iterdir()] == ["worker-0.sock"]


def test_all_of_systemds_sockets_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those count that are meant for this process."""
    with socket.socket() as first, socket.socket(socket.AF_UNIX) as second:
        # Descriptors 3 and 4 are taken here; that is all this changes.
        monkeypatch.setattr("ragserve.worker.sockets.FIRST_FD", FREE_FD)
        os.dup2(first.fileno(), FREE_FD)
        os.dup2(second.fileno(), FREE_FD + 1)
        environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
        taken = listening_sockets(environ, ServerConfig(port=0))
        assert [one.family for one in taken] == [socket.AF_INET, socket.AF_UNIX]
        for one in taken:
            one.close()
        (bound,) = listening_sockets({**environ, "LISTEN_PID": "1"}, ServerConfig(port=0))
        bound.close()


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(ConfigurationError, match=r"^cannot listen on .*/worker-0\.sock: "):
        bind_own(str(tmp_path / ("x" * 100)), 0, 8)
