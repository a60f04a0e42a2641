"""The FastAPI peer: ``uvicorn bench.peers.fastapi_app:app``; it reads ``ANSWERS`` and ``KEY``."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from pathlib import Path

from fastapi import FastAPI, Request, Response
from prometheus_client import Counter

RATE_PER_S = 1e6
BURST = 1e6

app = FastAPI()
requests = Counter("peer_requests", "Requests", ["status"])
ok = requests.labels("200")
digest = hashlib.sha256(os.environ["KEY"].encode()).digest()
answers: dict[bytes, bytes] = {}
for line in Path(os.environ["ANSWERS"]).read_text(encoding="utf-8").splitlines():
    pair = json.loads(line)
    answers[pair["request"].encode()] = pair["response"].encode()


class Bucket:
    """A token bucket."""

    def __init__(self) -> None:
        self.tokens = BURST
        self.at = time.monotonic()

    def take(self) -> bool:
        """Take a token if there is one."""
        now = time.monotonic()
        self.tokens = min(BURST, self.tokens + (now - self.at) * RATE_PER_S)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


bucket = Bucket()


@app.get("/ready")
async def ready() -> Response:
    """Say that we are here."""
    return Response(b"{}", media_type="application/json")


@app.post("/v1/query")
async def query(request: Request) -> Response:
    """Answer from memory."""
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(hashlib.sha256(key.encode()).digest(), digest):
        return Response(status_code=401)
    if not bucket.take():
        return Response(status_code=429)
    answer = answers.get(await request.body())
    if answer is None:
        return Response(status_code=404)
    ok.inc()
    return Response(answer, media_type="application/json")
