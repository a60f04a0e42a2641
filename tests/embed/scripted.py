"""A small server that speaks OpenAI's shapes and answers as scripted, for models elsewhere."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer

HANG = "hang"
"""A reply that never comes."""


class Reply(NamedTuple):
    """A status and a body, as bytes or as what becomes JSON."""

    body: object
    status: int = 200


Step = Reply | str | Callable[[Any], Reply]


class ScriptedServer:
    """Gives one reply of the script to each request; the last one answers all further ones."""

    def __init__(self, script: Sequence[Step]) -> None:
        self.base_url = ""
        self.asked: list[Any] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.hanging = asyncio.Event()
        self._script = list(script)
        self._closing = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        """Record what was asked and answer with the next reply."""
        body = await request.read()
        self.asked.append(msgspec.json.decode(body) if body else None)
        self.paths.append(request.path)
        self.keys.append(request.headers.get("Authorization"))
        step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(step, str):
            self.hanging.set()
            await self._closing.wait()
            return web.Response(status=503)
        reply = step if isinstance(step, Reply) else step(self.asked[-1])
        content = reply.body if isinstance(reply.body, bytes) else msgspec.json.encode(reply.body)
        return web.Response(body=content, status=reply.status, content_type="application/json")

    def release(self) -> None:
        """End the requests that hang."""
        self._closing.set()


@asynccontextmanager
async def scripted(*script: Step) -> AsyncIterator[ScriptedServer]:
    """Run a scripted server; its ``base_url`` ends in /v1."""
    server = ScriptedServer(script)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        server.base_url = str(running.make_url("/v1"))
        try:
            yield server
        finally:
            server.release()


def vector_of(text: str, dimensions: int = 4) -> list[float]:
    """Return a vector that tells a text by its length, not of unit length."""
    return [2.0 * len(text), 2.0] + [0.0] * (dimensions - 2)


def embeddings(*, dimensions: int = 4, as_lists: bool = False) -> Callable[[Any], Reply]:
    """Return a step that embeds its input, last text first, as base64 or as lists."""

    def reply(asked: Any) -> Reply:
        items = []
        for index, text in enumerate(asked["input"]):
            vector = vector_of(text, dimensions)
            encoded = base64.b64encode(np.array(vector, "<f4").tobytes()).decode()
            items.append({"index": index, "embedding": vector if as_lists else encoded})
        return Reply({"object": "list", "data": items[::-1], "model": asked["model"]})

    return reply


def completion(text: str | None, **more: object) -> Reply:
    """Return a chat completion with one choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return Reply({"object": "chat.completion", "choices": [choice], **more})
