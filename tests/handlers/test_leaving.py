"""Whoever leaves takes along what was done for them alone, at whatever stage it is."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from tests.conftest import Api, configured, serving
from tests.embed.scripted import vector_of
from tests.generate.test_dictation import piece
from tests.handlers.quiet import Quiet
from tests.handlers.test_ask import OFFICE, TRAVEL
from tests.handlers.test_two_workers import known
from tests.redis_server import redis_server
from tests.upstream.wire import HEAD, Client, Script, Wire, hang, said, then, wire

QUESTION: dict[str, Any] = {"query": "when is lunch served"}
FOLLOW_UP: dict[str, Any] = {
    "model": "rag",
    "messages": [
        {"role": "user", "content": "When is lunch served?"},
        {"role": "assistant", "content": "At noon."},
        {"role": "user", "content": "And where?"},
    ],
}


PASSED_ON: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class Stage:
    """Where a question hangs: ``reached`` once it does."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.hangs = False

    def script(self, script: Script) -> Script:
        """Return the script that says that the model has been asked."""

        async def follow(client: Client) -> None:
            asyncio.get_running_loop().call_soon(self.reached.set)
            await script(client)

        return follow

    async def embed(self, client: Client) -> None:
        """Answer as an embedder until told to hang."""
        while request := await client.request():
            if self.hangs:
                self.reached.set()
                await client.gone()
                return
            texts = json.loads(request.split(b"\r\n\r\n", 1)[1])["input"]
            data = [{"index": i, "embedding": vector_of(t, 384)} for i, t in enumerate(texts)]
            body = json.dumps({"data": data}).encode()
            await client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@asynccontextmanager
async def _full(api: Api, number: int, stage: Stage) -> AsyncIterator[None]:
    """A gate with no permit left; the question waits in its queue."""
    gate = api.services.pipeline.entrance.gates[number]
    gate.used += gate.limit.limit

    async def look() -> None:
        while not gate.waiting:  # noqa: ASYNC110 - its own count
            await asyncio.sleep(0)
        stage.reached.set()

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        gate.used -= gate.limit.limit


@asynccontextmanager
async def _no_connection(api: Api, _dsn: str, stage: Stage) -> AsyncIterator[None]:
    """All connections to the model in use; the call waits for one."""
    (member,) = api.services.model._upstream.members
    pool = member.server._pool

    async def look() -> None:
        while "1 waiting" not in repr(pool):  # noqa: ASYNC110 - its own count
            await asyncio.sleep(0)
        stage.reached.set()

    looking = asyncio.create_task(look())
    async with pool._slots:
        try:
            yield
        finally:
            looking.cancel()


@asynccontextmanager
async def _connecting(api: Api, _dsn: str, stage: Stage) -> AsyncIterator[None]:
    """The model's host leaves attempts to connect without an answer."""
    (member,) = api.services.model._upstream.members
    pool = member.server._pool
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        host, port = listener.getsockname()

        async def look(wanted: int) -> None:
            while _attempts(port) != wanted:  # noqa: ASYNC110 - the kernel says
                await asyncio.sleep(0.005)

        with socket.create_connection((host, port)):  # all that a backlog of none takes
            pool._origin = msgspec.structs.replace(pool._origin, host=host, port=port)
            task = asyncio.create_task(look(1))
            task.add_done_callback(lambda _: stage.reached.set())
            yield
            async with asyncio.timeout(30):
                await task
                await look(0)  # the attempt itself has been given up


def _attempts(port: int) -> int:
    """Return how many sockets have asked to be connected to a port, and wait (SYN_SENT)."""
    table = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    rows = (line.split() for line in table)
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows)


@asynccontextmanager
async def _pausing(api: Api, _dsn: str, stage: Stage) -> AsyncIterator[None]:
    """The model has asked to be left alone; the call has let go of it and tries again later."""
    (member,) = api.services.model._upstream.members

    async def look() -> None:
        for busy in ("1 busy", "0 busy"):
            while busy not in repr(member):  # noqa: ASYNC110 - its own count
                await asyncio.sleep(0)
        stage.reached.set()

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()


@asynccontextmanager
async def _locked(api: Api, dsn: str, stage: Stage) -> AsyncIterator[None]:
    """The passages locked away; the question's statement waits for them."""
    locking, looking = [await asyncpg.connect(dsn) for _ in range(2)]
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )

    async def look(wanted: int) -> None:
        while await looking.fetchval(waiting) != wanted:  # noqa: ASYNC110 - PostgreSQL says
            await asyncio.sleep(0.01)

    async with locking.transaction():
        collection = await api.services.catalog.get("default", "default")
        await locking.execute(f"LOCK TABLE {collection.table} IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(look(1))
        task.add_done_callback(lambda _: stage.reached.set())
        try:
            yield
            async with asyncio.timeout(30):
                await look(0)  # the statement itself has been cancelled
        finally:
            task.cancel()
    await locking.close()
    await looking.close()


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


Hanging = Callable[[Api, str, Stage], Any]
FREELY: Hanging = lambda _api, _dsn, _stage: _nothing()  # noqa: E731
STAGES: dict[str, tuple[Hanging, str, dict[str, object]]] = {
    "queued for the computation": (lambda a, _, s: _full(a, 0, s), "", {}),
    "queued for the database": (lambda a, _, s: _full(a, 1, s), "", {}),
    "queued for the language model": (lambda a, _, s: _full(a, 2, s), "", {}),
    "embedding": (FREELY, "embedder", {}),
    "in the database": (_locked, "", {}),
    "reranking": (FREELY, "reranker", {}),
    "rewriting": (FREELY, "before the head", {"answer__rewrite": "model"}),
    "before the head": (FREELY, "before the head", {}),
    "before the first word": (FREELY, "before the first word", {}),
    "in mid-stream": (FREELY, "in mid-stream", {}),
    "connecting": (_connecting, "", {}),
    "waiting for a connection": (_no_connection, "", {"llm__connections": 1}),
    "pausing after a failure": (_pausing, "asked to wait", {}),
    "passed on, before the head": (FREELY, "passed on, before the head", {"llm__model": "m"}),
    "passed on, in mid-stream": (FREELY, "passed on, in mid-stream", {"llm__model": "m"}),
}
WAIT = b"HTTP/1.1 503 Busy\r\nRetry-After: 4\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
SCRIPTS: dict[str, Script] = {
    "": hang,
    "embedder": hang,
    "reranker": hang,
    "before the head": hang,
    "before the first word": then(HEAD),
    "in mid-stream": then(HEAD + said(piece("At"))),
    "asked to wait": then(WAIT),
    "passed on, before the head": hang,
    "passed on, in mid-stream": then(HEAD + said(piece("At"))),
}


@asynccontextmanager
async def _served(
    tmp_path: Path, dsn: str, stage: Stage, where: str, settings: dict[str, object]
) -> AsyncIterator[tuple[Api, Wire]]:
    """A server whose model, reranker or embedder does as the stage wants; and that one's wire."""
    script = stage.embed if where == "embedder" else SCRIPTS[where]
    if where not in ("embedder", "asked to wait"):
        script = stage.script(script)
    async with wire(script) as state, wire(hang) as unused:
        url = f"http://127.0.0.1:{state.port}/v1"
        more: dict[str, object] = {"llm__base_url": f"http://127.0.0.1:{unused.port}/v1"}
        match where:
            case "embedder":
                more |= {"embedding__provider": "openai", "embedding__base_url": url}
            case "reranker":
                more |= {"rerank__base_url": url, "rerank__timeout_s": 60.0}
            case _:
                more["llm__base_url"] = url
        async with serving(configured(**more, **settings), tmp_path, dsn) as api:
            await api.ingest(OFFICE, TRAVEL)
            yield api, state


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("hanging", "where", "settings"), STAGES.values(), ids=STAGES.keys())
async def test_whoever_leaves_last_ends_it(
    hanging: Hanging,
    where: str,
    settings: dict[str, object],
    streamed: bool,
    tmp_path: Path,
    dsn: str,
    request: pytest.FixtureRequest,
) -> None:
    """No socket, task, permit, flight or statement outlives the only reader of an answer."""
    stage = Stage()
    async with asyncio.timeout(60), _served(tmp_path, dsn, stage, where, settings) as (api, state):
        path, question = "/v1/query", QUESTION
        if "answer__rewrite" in settings or "passed on" in where:
            path = "/v1/chat/completions"
            question = PASSED_ON if "passed on" in where else FOLLOW_UP
        quiet = Quiet(api)
        stage.hangs = True
        ended_before, open_before = state.ended, state.connections - state.ended

        async def read() -> None:
            body = {**question, "stream": streamed}
            async with api.client.post(path, json=body) as response:
                await response.read()

        async with hanging(api, dsn, stage):
            reading = asyncio.create_task(read())
            await stage.reached.wait()
            assert quiet.left_behind()
            left_at = time.monotonic()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            if where:
                await state.until_ended(ended_before + 1)
            ended_ms = (time.monotonic() - left_at) * 1000
            request.node.user_properties.append(("ended_ms", ended_ms))  # --junitxml shows it
        await quiet.again()
        assert state.connections - state.ended <= open_before


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_whoever_leaves_while_another_worker_computes(
    streamed: bool, tmp_path: Path, dsn: str
) -> None:
    """The wait for another worker's answer ends with its only reader; the other one goes on."""
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server())
        model = await stack.enter_async_context(wire(hang))
        config = configured(
            redis__url=redis.url,
            redis__timeout_ms=10_000,
            llm__base_url=f"http://127.0.0.1:{model.port}/v1",
        )
        one = await stack.enter_async_context(serving(config, tmp_path, dsn))
        other = await stack.enter_async_context(serving(config, tmp_path, dsn, ingest=False))
        await one.ingest(OFFICE, TRAVEL)
        await known(other, 2)

        async def read(api: Api) -> None:
            async with api.client.post(
                "/v1/query", json={**QUESTION, "stream": streamed}
            ) as response:
                await response.read()

        computing = asyncio.create_task(read(one))
        while not model.connections:  # noqa: ASYNC110 - its own count
            await asyncio.sleep(0.005)
        quiet = Quiet(other)
        waiting = asyncio.create_task(read(other))
        while not _is_in("find_or_lease"):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
        assert quiet.left_behind()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await quiet.again()
        assert not _is_in("find_or_lease")
        assert (model.connections, model.ended) == (1, 0)
        computing.cancel()
        await asyncio.gather(computing, return_exceptions=True)
        await model.until_ended(1)


def _is_in(function: str) -> bool:
    """Return whether some task waits within a coroutine function of this name."""
    for task in asyncio.all_tasks():
        coroutine: Any = task.get_coro()
        while coroutine is not None:
            if getattr(coroutine, "__name__", "") == function:
                return True
            coroutine = getattr(coroutine, "cr_await", None)
    return False
