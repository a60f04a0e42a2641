"""The receiving end of sd_notify(3): who sent it is what the kernel says, not the message."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid
MESSAGE_BYTES = 4096


class Notification(NamedTuple):
    """A message's sender, whether it says that it is ready, and what else it says (STATUS)."""

    pid: int
    ready: bool
    status: str | None = None


class Notifications:
    """An abstract datagram socket; ``address`` is for children's ``NOTIFY_SOCKET``."""

    def __init__(self) -> None:
        name = f"ragserve-{os.getpid()}-{os.urandom(4).hex()}"
        self.address = f"@{name}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.setblocking(False)
        self._socket.bind(f"\0{name}")

    def fileno(self) -> int:
        """Return the descriptor, for a selector."""
        return self._socket.fileno()

    def receive(self) -> list[Notification]:
        """Return what has arrived."""
        received: list[Notification] = []
        while True:
            try:
                message, ancillary, _, _ = self._socket.recvmsg(
                    MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size)
                )
            except BlockingIOError:
                return received
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid, _, _ = CREDENTIALS.unpack(data[: CREDENTIALS.size])
                    received.append(_parsed(pid, message))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _parsed(pid: int, message: bytes) -> Notification:
    lines = message.split(b"\n")
    status = next((line[7:] for line in lines if line.startswith(b"STATUS=")), None)
    said = None if status is None else status.decode(errors="replace")
    return Notification(pid, b"READY=1" in lines, said)
