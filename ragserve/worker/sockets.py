"""Where a worker's listening socket comes from: systemd, the supervisor, or itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from ragserve.host.sockets import LISTEN_FD, bind_socket

FIRST_FD = 3  # sd_listen_fds(3)


def listening_socket(
    environ: Mapping[str, str], host: str, port: int, backlog: int
) -> socket.socket:
    """Return the socket to accept on.

    ``RAGSERVE_LISTEN_FD`` is the supervisor's, or this process's own of before a reload;
    ``LISTEN_FDS`` counts only if ``LISTEN_PID`` is this process. Otherwise one is bound.
    """
    if LISTEN_FD in environ:
        return socket.socket(fileno=int(environ[LISTEN_FD]))
    if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "0") != "0":
        return socket.socket(fileno=FIRST_FD)
    return bind_socket(host, port, backlog)
