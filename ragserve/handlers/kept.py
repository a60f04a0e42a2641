"""A kept answer as a response: its bytes go to the client as they are.

aiohttp builds a response from its parts, which takes as long as all else it does for a request.
"""

from __future__ import annotations

import time

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from ragserve.cache.prepared import Prepared, assemble
from ragserve.handlers.services import DECISION, REQUEST_ID

CLOSE = b"Connection: close\r\n"


class KeptResponse(web.StreamResponse):
    """Sends ``prepared`` to a client that speaks HTTP/1.1.

    The request's id and limits come along; aiohttp's ``on_response_prepare`` has nothing to add.
    """

    def __init__(self, prepared: Prepared) -> None:
        super().__init__()
        self._kept = prepared

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Begin: there is nothing to send yet."""
        self._req = request
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        writer = self._payload_writer = request._payload_writer
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Write the whole response."""
        request = self._req
        if request is None or self._eof_sent:
            return
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        self._eof_sent = True
        lines = request[DECISION].headers
        if not self._keep_alive:
            lines += CLOSE
        request_id = request[REQUEST_ID].encode("ascii")
        answer = assemble(self._kept, lines, request_id, time.monotonic())
        self._body_length = len(self._kept.body)
        transport.write(answer)
        await request._payload_writer.drain()
        self._req = self._payload_writer = None
