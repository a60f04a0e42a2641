"""Where a worker's listening sockets come from: systemd, the supervisor, or itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from ragserve.config import ServerConfig
from ragserve.host.members import WORKER
from ragserve.host.sockets import LISTEN_FD, bind_own, bind_socket

FIRST_FD = 3  # sd_listen_fds(3)


def listening_sockets(environ: Mapping[str, str], server: ServerConfig) -> list[socket.socket]:
    """Return the sockets to accept on, at least one.

    ``RAGSERVE_LISTEN_FD`` names the supervisor's, or this process's own of before a reload;
    ``LISTEN_FDS`` counts only if ``LISTEN_PID`` is this process. Otherwise they are bound.
    """
    if LISTEN_FD in environ:
        return [socket.socket(fileno=int(fd)) for fd in environ[LISTEN_FD].split(",")]
    given = int(environ.get("LISTEN_FDS", "0"))
    if given and environ.get("LISTEN_PID") == str(os.getpid()):
        return [socket.socket(fileno=FIRST_FD + number) for number in range(given)]
    listeners = [bind_socket(server.host, server.port, server.backlog)]
    if server.sockets_dir:
        number = int(environ.get(WORKER, "0"))
        listeners.append(bind_own(server.sockets_dir, number, server.backlog))
    return listeners
