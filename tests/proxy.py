"""A proxy before a server of this host, for what happens to replies on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar


class Proxy:
    """Passes on what comes from either side; ``reply`` may do otherwise with replies."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def reply(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Do with a piece of a reply what is to be done with it."""
        writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replies, requests = await asyncio.open_connection("127.0.0.1", self.target)
        for passing in (self._pass_on(reader, requests), self._give_back(replies, writer)):
            self._tasks.add(asyncio.create_task(passing))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        finally:
            sink.close()

    async def _give_back(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self.reply(data, sink)
        finally:
            sink.close()


P = TypeVar("P", bound=Proxy)


@asynccontextmanager
async def running(proxy: P) -> AsyncIterator[P]:
    """Run a proxy; yield it with its port."""
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in proxy._tasks:
            task.cancel()
        await asyncio.gather(*proxy._tasks, return_exceptions=True)
