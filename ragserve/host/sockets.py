"""Listening sockets: a port that workers share (SO_REUSEPORT, socket(7)), and one of each's own.

The kernel spreads the connections to the port, and nobody chooses; a proxy that wants to try
another worker when one fails needs an address for each.
"""

from __future__ import annotations

import socket
from pathlib import Path

from ragserve.errors import ConfigurationError

LISTEN_FD = "RAGSERVE_LISTEN_FD"
"""The environment's name for the descriptors of inherited listening sockets, commas between."""
OWN_MODE = 0o660
"""A worker's own socket is for its user and group: whoever opens it may say who its clients are."""


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


def bind_own(directory: str, number: int, backlog: int) -> socket.socket:
    """Return the listening socket of worker ``number`` alone, ``worker-N.sock`` in ``directory``.

    One of that name is replaced in one step; who waits in it waits for its own worker still.
    """
    path = Path(directory, f"worker-{number}.sock")
    new = path.with_suffix(".new")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        listener.bind(str(new))
        new.chmod(OWN_MODE)
        listener.listen(backlog)
        new.rename(path)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {path}: {error}") from error
    listener.setblocking(False)
    return listener


def fits(listener: socket.socket, host: str, port: int) -> bool:
    """Return whether ``listener`` is what ``bind_socket`` would bind; port 0 is any."""
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = listener.getsockname()
    return listener.family == family and bound[0] == address[0] and port in (0, bound[1])
