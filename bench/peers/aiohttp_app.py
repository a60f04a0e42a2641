"""aiohttp alone: ``python -m bench.peers.aiohttp_app --port P``; it reads ``ANSWERS`` and ``KEY``.

What the framework that ragserve is built on costs by itself; every machine that runs the tests has
it, so the regression gate compares with it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from aiohttp import web

from bench.peers.aiohttp_base import has_key, run

answers: dict[bytes, bytes] = {}
for line in Path(os.environ["ANSWERS"]).read_text(encoding="utf-8").splitlines():
    pair = json.loads(line)
    answers[pair["request"].encode()] = pair["response"].encode()


async def query(request: web.Request) -> web.Response:
    """Answer from memory."""
    if not has_key(request):
        return web.Response(status=401)
    answer = answers.get(await request.read())
    if answer is None:
        return web.Response(status=404)
    return web.Response(body=answer, content_type="application/json")


if __name__ == "__main__":
    run(web.post("/v1/query", query), ())
