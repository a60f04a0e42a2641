"""Telling the supervisor how a process does: sd_notify(3), for systemd and for our own alike.

A datagram to ``NOTIFY_SOCKET`` says ``READY=1``, ``RELOADING=1``, ``STOPPING=1``, ``WATCHDOG=1``
or, at a bad end, ``STATUS=`` and why. The watchdog is fed while the event loop turns, however late
its timers are; for one that is stuck nothing is sent. Without a supervisor nothing is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping

from ragserve.host.pulse import watched

BEATS = 4
"""Signs of life within the supervisor's patience."""
LONGEST = 1000
"""Characters of a message."""


class Notifier:
    """The socket of ``NOTIFY_SOCKET``, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._patience_s = _patience_s(environ)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    @property
    def beats(self) -> bool:
        """Return whether signs of life are waited for."""
        return self._patience_s > 0

    def send(self, message: str) -> None:
        """Send one message; a supervisor that is gone or busy is not waited for."""
        if self._address:
            with contextlib.suppress(OSError):
                self._socket.sendto(message.encode(), self._address)

    def ready(self) -> None:
        """Say that this process serves, and how often it will give a sign of life."""
        self.send("READY=1" + (f"\nWATCHDOG_USEC={self._patience_s * 1e6:.0f}" * self.beats))

    def reloading(self, patience_s: float) -> None:
        """Say that this process begins again; until it is ready, ``patience_s`` may pass."""
        now_us = time.monotonic_ns() // 1000
        patience = f"\nWATCHDOG_USEC={patience_s * 1e6:.0f}" * self.beats
        self.send(f"RELOADING=1\nMONOTONIC_USEC={now_us}{patience}")

    async def beat(self) -> None:
        """Feed the watchdog until cancelled."""
        if not self.beats:
            return
        self._sign()
        async with watched(self._patience_s / BEATS, self._sign):
            await asyncio.get_running_loop().create_future()

    def _sign(self) -> None:
        self.send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


@contextlib.contextmanager
def last_words(environ: Mapping[str, str]) -> Iterator[None]:
    """Tell the supervisor what ends this process, if an exception does."""
    try:
        yield
    except Exception as error:
        notifier = Notifier(environ)
        notifier.send(f"STATUS={' '.join(str(error).split()) or type(error).__name__}"[:LONGEST])
        notifier.close()
        raise


def _patience_s(environ: Mapping[str, str]) -> float:
    """Return how long the supervisor waits for a sign of life; 0 if it does not."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(environ.get("WATCHDOG_USEC", "0")) / 1e6
