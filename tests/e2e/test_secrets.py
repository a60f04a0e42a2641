"""Secrets of a real server: whatever is done to it, none is in anything that it says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from tests.e2e.conftest import ServerProcess, ragserve, running
from tests.e2e.test_bundle import contents
from tests.embed.scripted import vector_of
from tests.redis_server import redis_server
from tests.upstream.wire import HEAD, Client, chunk, said, wire

LLM, EMBEDDER, RERANKER = "sk-canary-llm-key", "canary-embedder-key", "canary-reranker-key"
DATABASE, REDIS, REPLICA = "canary-dsn-password", "canary%20redis-password", "canary-replica"
SETTINGS = {
    "RAGSERVE_LOG__LEVEL": "debug",
    "RAGSERVE_LOG__ACCESS": "true",
    "RAGSERVE_LLM__API_KEY": LLM,
    "RAGSERVE_LLM__MODEL": "m",
    "RAGSERVE_LLM__ATTEMPTS": "1",
    "RAGSERVE_LLM__FIRST_TOKEN_TIMEOUT_S": "0.2",
    "RAGSERVE_LLM__TIMEOUT_S": "0.5",
    "RAGSERVE_EMBEDDING__PROVIDER": "openai",
    "RAGSERVE_EMBEDDING__API_KEY": EMBEDDER,
    "RAGSERVE_EMBEDDING__ATTEMPTS": "1",
    "RAGSERVE_RERANK__API_KEY": RERANKER,
    "RAGSERVE_ANSWER__MIN_SIMILARITY": "-1",
}
MODEL_FAILURES = ("refuse", "break", "garbage", "midstream", "unusable", "hang", "status")


async def upstream(client: Client) -> None:
    """Embed, and otherwise fail as the question says, with the caller's key in every reply."""
    while request := await client.request():
        head, body = request.split(b"\r\n\r\n", 1)
        key = next(
            line.split(b" ", 2)[2] for line in head.split(b"\r\n") if b"Authorization" in line
        )
        shown = json.dumps({"error": {"message": f"Incorrect API key: {key.decode()}"}}).encode()
        path = head.split(b" ", 2)[1]
        if path == b"/v1/embeddings" and b"unembeddable" not in body:
            texts = json.loads(body)["input"]
            data = [{"index": i, "embedding": vector_of(t, 8)} for i, t in enumerate(texts)]
            reply = json.dumps({"data": data}).encode()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(reply) + reply)
            continue
        for name, line in (("refuse", b"401 No"), ("break", b"500 No"), ("status", b"400 No")):
            if name.encode() in body or (name == "break" and path != b"/v1/chat/completions"):
                length = b"Content-Length: %d\r\nX-Key: %b\r\n\r\n" % (len(shown), key)
                await client.send(b"HTTP/1.1 " + line + b"\r\n" + length + shown)
                break
        else:
            if b"midstream" in body:
                await client.send(HEAD + said('{"choices": [{"delta": {"content": "At noon"}}]}'))
                await client.send(chunk(b"data: " + shown + b"\n\n"))
            elif b"unusable" in body:
                await client.send(HEAD + chunk(b"data: " + key + b"\n\n"))
            elif b"hang" not in body:
                await client.send(key + b" is no HTTP\r\n\r\n")
            await client.gone()
            return


class Said:
    """Everything that a server has said to its clients, heads included."""

    def __init__(self, server: ServerProcess, session: ClientSession) -> None:
        self.texts: list[str] = []
        self.server = server
        self._session = session

    async def call(
        self, method: str, path: str, body: object = None, token: str = "", **headers: str
    ) -> tuple[int, Any]:
        """Return status and body of an answer, JSON or not."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        options: Any = {} if body is None else {"json": body}
        async with self._session.request(
            method, self.server.url + path, headers=headers, **options
        ) as response:
            text = await response.text()
            self.texts.append(f"{response.status} {dict(response.headers)} {text}")
            is_json = response.content_type == "application/json"
            return response.status, json.loads(text) if is_json else text


async def exercise(said: Said) -> list[str]:
    """Do everything, well and badly; return the tokens of keys that have been made."""
    _, made = await said.call(
        "POST", "/v1/keys", {"name": "a", "scopes": ["query", "ingest", "admin"]}
    )
    admin = made["token"]
    _, other = await said.call("POST", "/v1/keys", {"name": "b", "scopes": ["query"]}, admin)
    _, rotated = await said.call("POST", f"/v1/keys/{other['key']['id']}/rotate", {}, admin)
    tokens = [admin, other["token"], rotated["token"]]
    document = {"id": "lunch", "text": "Lunch is served at noon. The hall is red."}
    status, _ = await said.call("POST", "/v1/documents?wait=20", document, admin)
    assert status == 200
    await said.call("POST", "/v1/documents", {"id": "b", "text": "unembeddable"}, admin)
    await said.server.event("document_retried")
    for name in MODEL_FAILURES:
        question = {"query": f"When is lunch? {name}"}
        for streamed in (False, True):
            status, _ = await said.call(
                "POST", "/v1/query", {**question, "stream": streamed}, admin
            )
            assert status == 200
        chat = {"model": "m", "messages": [{"role": "user", "content": name}]}
        if name != "midstream":
            await said.call("POST", "/v1/chat/completions", chat, admin)
    await said.call("POST", "/v1/search", {"query": "unembeddable"}, admin)
    await said.call("POST", "/v1/embeddings", {"model": "m", "input": "unembeddable"}, admin)
    for wrong in ("wrong", f"{admin[:-1]}_", tokens[1][:-4] + "!!!!", tokens[1]):
        await said.call("GET", "/v1/models", None, wrong)
        await said.call("GET", f"/v1/models?api_key={wrong}", None, "", Cookie=f"key={wrong}")
    await said.call("GET", "/v1/keys", None, admin)
    await said.call("GET", "/v1/keys", None, tokens[2])
    await said.call("DELETE", f"/v1/keys/{other['key']['id']}", None, admin)
    await said.call("POST", "/v1/query", {"query": admin}, tokens[2])
    for path in ("/health", "/ready", "/metrics", "/openapi.json"):
        await said.call("GET", path)
    return tokens


async def test_no_secret_is_told_to_anybody(data_dir: Path, tmp_path: Path, empty_dsn: str) -> None:
    """Keys and passwords are in no log, metric, state, answer, error or support bundle."""
    dsn = empty_dsn.replace("postgres:@", f"postgres:{DATABASE}@")
    assert DATABASE in dsn
    with redis_server() as redis:
        async with wire(upstream) as state:
            base_url = f"http://127.0.0.1:{state.port}/v1"
            # A Redis without a password answers one with an error, a replica is not there.
            settings = {
                **SETTINGS,
                "DATABASE_URL": dsn,
                "RAGSERVE_DATABASE__REPLICA_DSN": f"postgresql://u:{REPLICA}@127.0.0.1:1/x",
                "REDIS_URL": redis.url.replace("//", f"//:{REDIS}@"),
                **{f"RAGSERVE_{part}__BASE_URL": base_url for part in ("LLM", "RERANK")},
                "RAGSERVE_EMBEDDING__BASE_URL": base_url,
            }
            bundle = tmp_path / "bundle.tar.gz"
            async with running(data_dir, "--workers", "1", **settings) as server:
                said = Said(server, server.session)
                tokens = await exercise(said)
                settings["RAGSERVE_SERVER__PORT"] = server.url.rpartition(":")[2]
                commands = (("support-bundle", str(bundle)), ("check",))
                done, check = await asyncio.gather(
                    *(asyncio.to_thread(ragserve, data_dir, *one, **settings) for one in commands)
                )
    assert done.returncode == 0, done.stderr
    told = {
        "logs": json.dumps(server.events),
        "answers": "\n".join(said.texts[3:]),  # before them are those that made the keys
        "bundle": json.dumps(contents(bundle)),
        "check": check.stdout + check.stderr + done.stdout + done.stderr,
    }
    secrets = [LLM, EMBEDDER, RERANKER, DATABASE, REPLICA, REDIS, "canary redis-password"]
    secrets += [token.split("_", 2)[2] for token in tokens]
    for where, text in told.items():
        assert [secret for secret in secrets if secret in text] == [], where
    # It has been there to be told: failures show where it was left out.
    assert "***" in told["answers"]
    assert "***" in told["logs"]
    assert "language model" in told["logs"]
    assert "redis" in told["logs"]
