"""Where a worker's listening socket comes from: systemd, the supervisor, or itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from ragserve.errors import ConfigurationError

FIRST_FD = 3  # sd_listen_fds(3)
LISTEN_FD = "RAGSERVE_LISTEN_FD"


def listening_socket(
    environ: Mapping[str, str], host: str, port: int, backlog: int
) -> socket.socket:
    """Return the socket to accept on.

    ``RAGSERVE_LISTEN_FD`` is the supervisor's; ``LISTEN_FDS`` counts only if ``LISTEN_PID`` is
    this process. Otherwise one is bound.
    """
    if LISTEN_FD in environ:
        return socket.socket(fileno=int(environ[LISTEN_FD]))
    if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "0") != "0":
        return socket.socket(fileno=FIRST_FD)
    return bind_socket(host, port, backlog)


def bind_socket(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening socket that shares its port with other workers' (SO_REUSEPORT)."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error}") from error
    listener.setblocking(False)
    return listener
