"""The truth about this server: alive, ready, and how every dependency does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from aiohttp import web

from ragserve import __version__
from ragserve.errors import RagserveError
from ragserve.handlers.body import json_response
from ragserve.handlers.services import PRESENCE, SERVICES, Services
from ragserve.host.overview import Seen, look_around
from ragserve.schema import Dependency, HealthResponse, HostProcess, ReadyResponse
from ragserve.store.jobs import count_runners

PROBE_S = 2.0


async def health(request: web.Request) -> web.Response:
    """Say how every dependency does, measured now (or, by the express lane, a moment ago).

    Answers 200 while questions can be answered, be it degraded, and 503 otherwise.
    """
    services = request.app[SERVICES]
    names = ("database", "ingest", "embedder", "llm", "redis")
    own = request.app[PRESENCE]
    seen, *results = await asyncio.gather(
        look_around(own.directory, "state", own),
        _probe(_database, services),
        _probe(_ingest, services),
        _probe(_embedder, services),
        _probe(_model, services),
        _probe(_redis, services),
    )
    dependencies = dict(zip(names, results, strict=True))
    dependencies["reranker"] = await _probe(_reranker, services)
    failing = [name for name, found in dependencies.items() if found.status == "failing"]
    status: Literal["ok", "degraded", "failing"] = "degraded" if failing else "ok"
    if "database" in failing and len(services.indexes) == 0:
        status = "failing"
    now = time.monotonic()
    workers = [_process(one, now) for one in seen]
    if status == "ok" and any(worker.state == "unreachable" for worker in workers):
        status = "degraded"
    uptime_s = round(now - services.started_at, 1)
    body = HealthResponse(status, __version__, uptime_s, dependencies, workers)
    services.vitals.keep(body, now)
    return json_response(body, status=503 if status == "failing" else 200)


async def ready(request: web.Request) -> web.Response:
    """Say whether new requests are welcome; 503 while they are not."""
    phase = request.app[SERVICES].phase
    return json_response(ReadyResponse(phase), status=200 if phase == "ready" else 503)


async def _probe(
    check: Callable[[Services], Awaitable[str | None]], services: Services
) -> Dependency:
    start = time.monotonic()
    try:
        async with asyncio.timeout(PROBE_S):
            # Made here: whoever leaves before this has begun leaves no coroutine that never runs.
            absent = await check(services)
    except TimeoutError:
        return Dependency("failing", PROBE_S * 1000, f"no answer within {PROBE_S} s")
    except RagserveError as error:
        return Dependency("failing", _ms(start), error.message)
    if absent is not None:
        return Dependency("absent", detail=absent)
    return Dependency("ok", _ms(start))


def _process(seen: Seen, now: float) -> HostProcess:
    label, identity, state = seen
    uptime_s = round(now - identity.started, 1)
    if state is None:
        return HostProcess(label, "unreachable", identity.pid, None, uptime_s, None)
    return HostProcess(label, state.phase, identity.pid, state.core, uptime_s, state.version)


async def _database(services: Services) -> None:
    await services.database.fetchval("SELECT 1")


async def _ingest(services: Services) -> None:
    if await count_runners(services.database) == 0:
        raise RagserveError("no ingest process: uploads wait in the queue")


async def _embedder(services: Services) -> None:
    await services.embedder.embed(["health"])


async def _model(services: Services) -> str | None:
    if services.model is None:
        return "llm.base_url is not set: answers are extracted sentences"
    await services.model.check()
    return None


async def _reranker(services: Services) -> str | None:
    if services.reranker is None:
        return "rerank.base_url is not set: passages stay as the search orders them"
    services.reranker.check_breaker()
    return None


async def _redis(services: Services) -> str | None:
    if services.redis is None:
        return "redis.url is not set: each worker keeps answers of its own"
    await services.redis.ping()
    return None


def _ms(start: float) -> float:
    return round((time.monotonic() - start) * 1000, 2)
