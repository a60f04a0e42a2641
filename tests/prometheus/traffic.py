"""A real server with everything that it can have, and some of everything that happens to one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.e2e.conftest import ServerProcess, ragserve, running
from tests.generate.test_dictation import STOP, WORDS, piece
from tests.redis_server import redis_server
from tests.upstream.wire import END, HEAD, Client, said, wire

PAUSE_S = 0.02
"""Between words, which would arrive as one without it."""
JSON_REPLY = b'{"choices":[{"message":{"content":"Hi"}}],"usage":{"prompt_tokens":1}}'


async def model(client: Client) -> None:
    """Answer as a language model does; fail when asked to."""
    while request := await client.request():
        if b"fail" in request:
            await client.send(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops")
        elif b'"stream":true' in request:
            await client.send(HEAD + WORDS)
            await asyncio.sleep(PAUSE_S)
            await client.send(said(piece(" So it is.")) + STOP + END)
        else:
            length = len(JSON_REPLY)
            await client.send(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, JSON_REPLY)
            )


@asynccontextmanager
async def busy_server(data_dir: Path, *arguments: str) -> AsyncIterator[ServerProcess]:
    """A server with Redis, a language model and a document."""
    with redis_server() as redis:
        async with wire(model) as upstream:
            more = {
                "RAGSERVE_LLM__BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
                "RAGSERVE_LLM__MODEL": "m",
                "RAGSERVE_LLM__ATTEMPTS": "1",
                "REDIS_URL": redis.url,
            }
            async with running(data_dir, *arguments, **more) as server:
                document = {"id": "a", "text": "Lunch is at noon."}
                assert (await server.call("POST", "/v1/documents?wait=30", document))[0] == 200
                yield server


async def use(server: ServerProcess, number: int) -> None:
    """Ask questions of all kinds, some of which fail; ``number`` makes them new."""
    asked = {"query": f"when is lunch {number}"}
    await server.call("POST", "/v1/query", asked)
    await server.call("POST", "/v1/query", asked)
    await server.call("POST", "/v1/search", asked)
    await server.call("POST", "/v1/search", {"query": "x", "collection": "none"})
    await server.call("POST", "/v1/query", {"query": f"fail at lunch {number}"})
    for path in ("/v1/query", "/v1/query", "/v1/chat/completions"):
        body = {
            "query": f"lunch as a stream {number}",
            "model": "rag",
            "messages": [{"role": "user", "content": f"lunch {number}"}],
            "stream": True,
        }
        async with server.session.post(server.url + path, json=body) as response:
            await response.read()
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    await server.call("POST", "/v1/chat/completions", chat)
    await server.call("DELETE", "/v1/cache")
    document = {"id": f"more-{number}", "text": f"Supper number {number} is at six."}
    await server.call("POST", "/v1/documents?wait=30", document)


async def lock(server: ServerProcess, data_dir: Path) -> None:
    """Make a key that ends, and be refused with a wrong one."""
    command = ("keys", "create", "test", "--scope", "query", "--days", "3")
    done = await asyncio.to_thread(ragserve, data_dir, *command)
    assert done.returncode == 0, done.stderr
    url = f"{server.url}/v1/search"
    headers = {"Authorization": "Bearer rs_000000000000_wrong"}
    async with server.session.post(url, json={"query": "x"}, headers=headers) as response:
        assert response.status == 401
