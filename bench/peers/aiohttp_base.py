"""What the peers of aiohttp alone share: the key, readiness, and how they run."""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Callable, Sequence

import uvloop
from aiohttp import web

digest = hashlib.sha256(os.environ["KEY"].encode()).digest()


def has_key(request: web.Request) -> bool:
    """Return whether a request comes with ``KEY``."""
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    return hmac.compare_digest(hashlib.sha256(key.encode()).digest(), digest)


async def ready(_request: web.Request) -> web.Response:
    """Say that we are here."""
    return web.Response(body=b"{}", content_type="application/json")


def run(
    route: web.RouteDef, while_running: Sequence[Callable[[web.Application], AsyncIterator[None]]]
) -> None:
    """Serve ``route`` on ``--port`` of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = web.Application()
    app.add_routes([web.get("/ready", ready), route])
    app.cleanup_ctx.extend(while_running)
    port = parser.parse_args().port
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, loop=uvloop.new_event_loop())
