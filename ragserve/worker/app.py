"""The composition root: the only place where the parts of a worker meet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from aiohttp import web

from ragserve.cache import Answers
from ragserve.cache.prepared import prepare_json
from ragserve.cache.shared import SharedCache
from ragserve.config import Config
from ragserve.edge.access import access
from ragserve.edge.address import PROXIES, Proxies
from ragserve.edge.auth import authenticate
from ragserve.edge.lane import Lane, Questions
from ragserve.edge.patience import patience
from ragserve.edge.problem import problem
from ragserve.edge.ratelimit import LIMITER, RateLimiter, limit, tell
from ragserve.edge.traced import TRACER, ServerTracer, TracedLane, trace
from ragserve.edge.watch import WATCH, Watch
from ragserve.embed import open_embedder
from ragserve.errors import ConfigurationError
from ragserve.flow.in_flight import InFlight
from ragserve.flow.signal import Signal
from ragserve.flow.streams import Streams
from ragserve.generate import LanguageModel
from ragserve.handlers import PRESENCE, ROUTES, SERVICES, Services
from ragserve.handlers.metrics import metrics
from ragserve.handlers.openapi import openapi
from ragserve.handlers.vitals import Vitals
from ragserve.host.disk import show_space
from ragserve.host.members import WORKER, run_directory, this_process
from ragserve.host.presence import Phase, Presence
from ragserve.host.trials import TrialFiles
from ragserve.metrics import HTTP_IN_FLIGHT
from ragserve.pipeline import Pipeline
from ragserve.pipeline.gates import open_gates
from ragserve.retrieve import Indexes, Reranker
from ragserve.schema import ReadyResponse
from ragserve.store.catalog import TRUST_S, Catalog
from ragserve.store.collections import CHANGED
from ragserve.store.keyring import Keyring
from ragserve.store.keys import KEYS_CHANGED
from ragserve.store.listen import Listener
from ragserve.store.pool import Database, pool_size
from ragserve.store.redis import Redis
from ragserve.store.replica import Searches
from ragserve.store.shares import Shares
from ragserve.tracing import use
from ragserve.worker.gauges import show_dependencies


def create_app(
    config: Config,
    data_dir: Path,
    dsn: str,
    *,
    workers: int = 1,
    listener: socket.socket | None = None,
) -> web.Application:
    """Return the application; its services open at start-up and close at clean-up.

    ``listener`` is what it will be served on; a supervisor that takes over may ask for it.
    """
    middlewares = [access, problem, authenticate, limit, patience]
    if config.tracing.enabled:
        middlewares.insert(1, trace)
    app = web.Application(middlewares=middlewares, client_max_size=config.limits.body_bytes)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler)
        if route.method == "GET":  # who may see it may ask whether it is there (RFC 9110, 9.1)
            app.router.add_route("HEAD", route.path, route.handler)
    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/metrics", metrics)

    async def presence(app: web.Application) -> AsyncIterator[None]:
        directory = run_directory(config.storage, data_dir, os.environ)
        identity = this_process(os.environ.get(WORKER, "0"), os.environ)

        def phase() -> Phase:
            return app[SERVICES].phase if SERVICES in app else "starting"

        opened = app[PRESENCE] = Presence(directory, identity, phase, listener)
        async with opened.entered():
            yield

    async def tracing(app: web.Application) -> AsyncIterator[None]:
        tracer = app[TRACER] = tracer_of(app[PRESENCE].identity.id)
        use(tracer)
        yield
        use(None)
        await tracer.close()

    async def services(app: web.Application) -> AsyncIterator[None]:
        async with open_services(config, data_dir, dsn, workers=workers) as opened:
            app[SERVICES] = opened
            shares = Shares(opened.redis, config.redis.prefix) if opened.redis else None
            sharing = workers * config.server.hosts
            limiter = app[LIMITER] = RateLimiter(config, sharing, shares)
            yield
            await limiter.close()

    app[PROXIES] = Proxies(config.server.trusted_proxies)
    app.on_response_prepare.append(tell)
    watch = app[WATCH] = Watch(config.limits, app[PROXIES])
    app.on_cleanup.append(watch.stop)
    app.cleanup_ctx.extend(
        (presence, tracing, services) if config.tracing.enabled else (presence, services)
    )
    return app


def create_lane(config: Config, app: web.Application) -> Lane:
    """Return the express lane of a running application."""
    services = app[SERVICES]
    ready = prepare_json(ReadyResponse("ready"))
    pipeline = services.pipeline
    classes = {
        "/v1/query": ("query", pipeline.entrance),
        "/v1/search": ("search", pipeline.search_entrance),
    }
    tracer = app.get(TRACER)
    lane = Lane if tracer is None else partial(TracedLane, tracer)
    return lane(
        config.log,
        lambda: services.phase == "ready",
        pages={"/ready": lambda _: ready, "/health": services.vitals.try_get},
        questions=Questions(
            classes,
            services.answers,
            services.keyring,
            app[LIMITER],
            others={"/v1/chat/completions": "query", "/v1/embeddings": "search"},
        ),
        proxies=app[PROXIES],
    )


def tracer_of(instance: str) -> ServerTracer:
    """Return OpenTelemetry's tracer; raise ``ConfigurationError`` if that is not installed."""
    try:
        from ragserve.tracing.otel import open_tracer
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"tracing.enabled: {error.name} is not installed: pip install 'ragserve[otel]'"
        ) from error
    return open_tracer(instance)


@asynccontextmanager
async def open_services(
    config: Config, data_dir: Path, dsn: str, *, workers: int = 1
) -> AsyncIterator[Services]:
    """Open what handlers work with, warm; close it in the opposite order."""
    async with AsyncExitStack() as stack:
        connections = pool_size(config.database, workers)
        gates = open_gates(config, connections)
        database = Database(dsn, config.database, size=connections)
        await database.open()
        stack.push_async_callback(database.close)
        replica = None
        if config.database.replica_dsn:
            replica = Database(config.database.replica_dsn, config.database, size=connections)
            await replica.open(at_once=False)
            stack.push_async_callback(replica.close)
        searches = Searches(database, replica)
        trials = TrialFiles(run_directory(config.storage, data_dir, os.environ))
        stack.callback(trials.close)
        embedder = await open_embedder(config.embedding, trials)
        stack.push_async_callback(embedder.close)
        model = LanguageModel(config.llm, trials) if config.llm.servers else None
        if model is not None:
            stack.push_async_callback(model.close)
        reranker = Reranker(config.rerank, trials) if config.rerank.base_url else None
        if reranker is not None:
            stack.push_async_callback(reranker.close)
        catalog = Catalog(database)
        keyring = Keyring(database, config.auth)
        changed = Signal()

        def note_change(payload: str) -> None:
            catalog.changed(payload)
            changed.send()

        async def catch_up() -> None:
            database.spoke()
            await catalog.reload()
            keyring.reload()

        def hear(at: float) -> None:
            database.spoke()
            catalog.heard(at)
            keyring.heard(at)

        listener = Listener(
            database,
            {CHANGED: note_change, KEYS_CHANGED: keyring.notified},
            on_connect=catch_up,
            on_alive=hear,
            on_silence=database.fell_silent,
            probe_s=TRUST_S / 3,
        )
        listener.start()
        stack.push_async_callback(listener.stop)
        indexes = Indexes(data_dir)
        in_flight = InFlight()
        HTTP_IN_FLIGHT.set_function(lambda: in_flight.count)
        answers = Answers(config.cache, catalog.current)
        redis = Redis(config.redis) if config.redis.url else None
        show_dependencies(database, listener, redis)
        show_space(data_dir)
        shared = None
        if redis is not None:
            await redis.open()
            stack.push_async_callback(redis.close)
            shared = SharedCache(redis, config.redis.prefix)
            stack.push_async_callback(shared.close)
        pipeline = Pipeline(
            config, searches, catalog, indexes, embedder, model, answers, gates, shared, reranker
        )
        stack.push_async_callback(pipeline.close)
        yield Services(
            config=config,
            database=database,
            keyring=keyring,
            catalog=catalog,
            indexes=indexes,
            embedder=embedder,
            model=model,
            reranker=reranker,
            redis=redis,
            answers=answers,
            pipeline=pipeline,
            changes=gates.changes,
            changed=changed,
            in_flight=in_flight,
            streams=Streams(),
            vitals=Vitals(),
            started_at=time.monotonic(),
        )
