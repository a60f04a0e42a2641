"""Telling the supervisor how a process does: sd_notify(3), for systemd and for our own alike.

A datagram to ``NOTIFY_SOCKET`` says ``READY=1``, ``STOPPING=1`` or ``WATCHDOG=1``. The watchdog is
fed by the event loop: a loop that is stuck feeds nothing. Without a supervisor nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

BEATS = 4
"""Signs of life within the supervisor's patience."""


class Notifier:
    """The socket of ``NOTIFY_SOCKET``, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._interval_s = _patience_s(environ) / BEATS
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, message: str) -> None:
        """Send one message; a supervisor that is gone or busy is not waited for."""
        if self._address:
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)

    async def beat(self) -> None:
        """Feed the watchdog until cancelled."""
        while self._interval_s:
            self.send("WATCHDOG=1")
            await asyncio.sleep(self._interval_s)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _patience_s(environ: Mapping[str, str]) -> float:
    """Return how long the supervisor waits for a sign of life; 0 if it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(environ.get("WATCHDOG_USEC", "0")) / 1e6
