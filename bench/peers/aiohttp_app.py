"""aiohttp alone: ``python -m bench.peers.aiohttp_app --port P``; it reads ``ANSWERS`` and ``KEY``.

What the framework that ragserve is built on costs by itself; every machine that runs the tests has
it, so the regression gate compares with it.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import os
from pathlib import Path

import uvloop
from aiohttp import web

digest = hashlib.sha256(os.environ["KEY"].encode()).digest()
answers: dict[bytes, bytes] = {}
for line in Path(os.environ["ANSWERS"]).read_text(encoding="utf-8").splitlines():
    pair = json.loads(line)
    answers[pair["request"].encode()] = pair["response"].encode()


async def ready(_request: web.Request) -> web.Response:
    """Say that we are here."""
    return web.Response(body=b"{}", content_type="application/json")


async def query(request: web.Request) -> web.Response:
    """Answer from memory."""
    key = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(hashlib.sha256(key.encode()).digest(), digest):
        return web.Response(status=401)
    answer = answers.get(await request.read())
    if answer is None:
        return web.Response(status=404)
    return web.Response(body=answer, content_type="application/json")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.post("/v1/query", query)])
    port = parser.parse_args().port
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, loop=uvloop.new_event_loop())


if __name__ == "__main__":
    main()
