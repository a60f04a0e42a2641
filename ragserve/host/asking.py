"""Asking the other processes of the host, all at once and for a bounded time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ragserve.host.members import REPLY_BYTES, Identity, address
from ragserve.host.presence import State

ASK_S = 0.5
"""For all together: a scrape must not wait long for a process that hangs."""

_decode = msgspec.json.Decoder(State).decode


async def ask_all(
    directory: Path, members: Sequence[Identity], question: str, timeout_s: float
) -> dict[str, State]:
    """Return the states, by id, of those that answered in time."""
    asked = {
        asyncio.create_task(_ask(directory, member, question)): member.id for member in members
    }
    if not asked:
        return {}
    done, late = await asyncio.wait(asked, timeout=timeout_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return {asked[task]: state for task in done if (state := task.result()) is not None}


async def _ask(directory: Path, member: Identity, question: str) -> State | None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            # Never waits: a Unix socket connects at once or refuses.
            with address(directory, member) as name:
                connection.connect(name)
            await loop.sock_sendall(connection, question.encode())
            return _decode(await loop.sock_recv(connection, REPLY_BYTES))
        except (OSError, msgspec.DecodeError):
            return None
