"""A server made of bytes: each connection does what the test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ragserve.upstream import Patience, Server

KEY = "sk-very-secret"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def said(*words: str) -> bytes:
    """Return chunks that hold an event for each word."""
    return b"".join(chunk(b"data: " + word.encode() + b"\n\n") for word in words)


END = said("[DONE]") + chunk(b"")


class Client:
    """One connection of a client, seen from the server; ``gone`` once it is closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """Return the next request, b"" if the client has left."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = next(
            (
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            ),
            0,
        )
        return head + await self._reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Break the connection without an end."""
        self._writer.transport.abort()


Script = Callable[[Client], Awaitable[None]]


class Wire:
    """What happened: connections made, and scripts that have ended."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.ended = 0
        self.changed = asyncio.Condition()

    async def until_ended(self, count: int) -> None:
        """Wait until so many connections are over."""
        async with asyncio.timeout(30), self.changed:
            await self.changed.wait_for(lambda: self.ended >= count)


@asynccontextmanager
async def wire(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Run a server on a port of its own."""
    state = Wire()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        state.connections += 1
        try:
            await script(Client(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            async with state.changed:
                state.ended += 1
                state.changed.notify_all()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        await state.until_ended(state.connections)


def replies(*each: bytes) -> Script:
    """Return a script that gives these bytes, one after another, to requests."""

    async def script(client: Client) -> None:
        for reply in each:
            if not await client.request():
                return
            await client.send(reply)
        await client.gone()

    return script


@asynccontextmanager
async def calling(
    script: Script,
    *,
    connections: int = 4,
    connect_timeout_s: float = 10.0,
    timeout_s: float = 30.0,
) -> AsyncIterator[tuple[Server, Wire]]:
    """A client of a server that follows the script."""
    async with wire(script) as state:
        server = Server(
            "model",
            f"http://127.0.0.1:{state.port}/v1",
            KEY,
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
        )
        try:
            yield server, state
        finally:
            await server.close()


PATIENCE = Patience(first_s=30.0, between_s=30.0)


async def heard(server: Server, patience: Patience = PATIENCE) -> list[bytes]:
    """Return the events of a stream that the server gives."""
    events: list[bytes] = []
    assert await server.post("/chat", b"{}", events.extend, patience) == b""
    return events


async def hang(client: Client) -> None:
    """Take a request and do no more."""
    await client.request()
    await client.gone()


def then(data: bytes, *, reset: bool = False, close: bool = False) -> Script:
    """Return a script that answers with ``data`` and then does no more, or ends the connection."""

    async def script(client: Client) -> None:
        await client.request()
        await client.send(data)
        if reset:
            client.reset()
        elif not close:
            await client.gone()

    return script
