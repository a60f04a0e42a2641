"""Listening sockets that share their port (SO_REUSEPORT, socket(7))."""

from __future__ import annotations

import socket

from ragserve.errors import ConfigurationError

LISTEN_FD = "RAGSERVE_LISTEN_FD"
"""The environment's name for an inherited listening socket's descriptor."""


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


def fits(listener: socket.socket, host: str, port: int) -> bool:
    """Return whether ``listener`` is what ``bind_socket`` would bind; port 0 is any."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = listener.getsockname()
    return listener.family == family and bound[0] == address[0] and port in (0, bound[1])
