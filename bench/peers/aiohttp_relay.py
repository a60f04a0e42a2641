"""A relay of aiohttp's client and server: ``python -m bench.peers.aiohttp_relay --port P``.

What ragserve would cost a token if it read the language model with a well-kept client and wrote as
that client's users do. It reads ``KEY`` and ``TARGET``, and passes bytes on as they come.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

from bench.peers.aiohttp_base import has_key, run

target = os.environ["TARGET"]
client = web.AppKey("client", ClientSession)


async def chat(request: web.Request) -> web.StreamResponse:
    """Pass a stream on."""
    if not has_key(request):
        return web.Response(status=401)
    body = await request.read()
    headers = {"Content-Type": "application/json"}
    async with request.app[client].post(target + request.path, data=body, headers=headers) as reply:
        response = web.StreamResponse(status=reply.status)
        response.content_type = reply.content_type
        await response.prepare(request)
        async for piece in reply.content.iter_any():
            await response.write(piece)
        await response.write_eof()
        return response


async def opened(app: web.Application) -> AsyncIterator[None]:
    """Have a client as long as the app runs."""
    async with ClientSession(
        connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None)
    ) as session:
        app[client] = session
        yield


if __name__ == "__main__":
    run(web.post("/v1/chat/completions", chat), (opened,))
