"""A relay of aiohttp's client and server: ``python -m bench.peers.aiohttp_relay --port P``.

What ragserve would cost a token if it read the language model with a well-kept client and wrote as
that client's users do. It reads ``KEY`` and ``TARGET``, and passes bytes on as they come.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
from collections.abc import AsyncIterator

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

digest = hashlib.sha256(os.environ["KEY"].encode()).digest()
target = os.environ["TARGET"]
client = web.AppKey("client", ClientSession)


async def ready(_request: web.Request) -> web.Response:
    """Say that we are here."""
    return web.Response(body=b"{}", content_type="application/json")


async def chat(request: web.Request) -> web.StreamResponse:
    """Pass a stream on."""
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(hashlib.sha256(key.encode()).digest(), digest):
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


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.post("/v1/chat/completions", chat)])
    app.cleanup_ctx.append(opened)
    port = parser.parse_args().port
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
