"""What the server asks elsewhere: embedder, language models, reranker, Redis."""

from __future__ import annotations

import time
from typing import Any

import asyncpg
import msgspec
from redis.exceptions import RedisError

from ragserve.cli.checks.database import SKEW_S
from ragserve.cli.checks.finding import Finding, doubtful, failed, passed
from ragserve.config import Config, UpstreamConfig
from ragserve.embed import open_embedder
from ragserve.errors import RagserveError, Unavailable
from ragserve.generate import LanguageModel
from ragserve.retrieve import Reranker
from ragserve.store.dial import DRIVER_ERRORS
from ragserve.store.redis import Redis


async def check_embedder(config: Config, dsn: str | None) -> list[Finding]:
    """Load or reach the embedder, and compare it with the collections at ``dsn``."""
    name = "embedder"
    try:
        embedder = await open_embedder(config.embedding)
    except RagserveError as error:
        return [failed(name, error, "embedding.base_url, api_key and model; the network")]
    try:
        made_by = [] if dsn is None else await _embedders(dsn, config.database.connect_timeout_s)
        others = [other for other in made_by if other != embedder.name]
        if others:
            text = f"{embedder.name}, but there are collections of {', '.join(others)}"
            remedy = "the embedder they were made with, or ingest them again under another name"
            return [failed(name, text, remedy)]
        return [passed(name, f"{embedder.name}, {embedder.dimensions} dimensions")]
    finally:
        await embedder.close()


async def _embedders(dsn: str, timeout_s: float) -> list[str]:
    try:
        connection = await asyncpg.connect(dsn, timeout=timeout_s)
        try:
            rows = await connection.fetch("SELECT DISTINCT embedder FROM collections")
        finally:
            await connection.close(timeout=1.0)
    except (OSError, TimeoutError, *DRIVER_ERRORS):
        return []  # the database's own check says what is wrong with it
    return [row["embedder"] for row in rows]


async def check_models(config: Config) -> list[Finding]:
    """Ask each server of the language model by itself."""
    servers = config.llm.servers
    if not servers:
        return [passed("language model", "none configured: answers are extracted sentences")]
    return [await _check_model(config, server, len(servers)) for server in servers]


async def _check_model(config: Config, server: UpstreamConfig, servers: int) -> Finding:
    alone = msgspec.structs.replace(
        config.llm,
        base_url=server.base_url,
        api_key=server.api_key,
        model=server.model or config.llm.model,
        upstreams=(),
    )
    model = LanguageModel(alone)
    try:
        await model.check()
    except RagserveError as error:
        remedy = "is it running, may this host reach it (IPAddressAllow=), is its key right?"
        if servers > 1:
            return doubtful("language model", error.message, remedy)
        return failed("language model", error, remedy)
    finally:
        await model.close()
    return passed("language model", f"{alone.model} at {alone.base_url}")


async def check_reranker(config: Config) -> list[Finding]:
    """Have it order two sentences."""
    name = "reranker"
    if not config.rerank.base_url:
        return [passed(name, "none configured: passages stay as the search orders them")]
    reranker = Reranker(config.rerank)
    try:
        await reranker.check()
    except RagserveError as error:
        remedy = "is it running? rerank.base_url, api and api_key"
        return [doubtful(name, f"{error.message}; the server does without", remedy)]
    finally:
        await reranker.close()
    return [passed(name, f"{config.rerank.model or config.rerank.api}, {config.rerank.base_url}")]


async def check_redis(config: Config) -> list[Finding]:
    """Reach Redis, and look at how it forgets and what time it has."""
    name = "redis"
    if not config.redis.url:
        return [passed(name, "none configured: each worker keeps answers and limits of its own")]
    redis = Redis(config.redis)
    try:
        await redis.ping()
        start = time.monotonic()
        info = await redis.client.info()
        elapsed_ms = (time.monotonic() - start) * 1000
        seconds, microseconds = await redis.client.time()
    except (Unavailable, RedisError, OSError) as error:
        text = getattr(error, "message", str(error))
        return [doubtful(name, f"{text}; the server does without", "is it running? redis.url")]
    finally:
        await redis.close()
    return list(judge_redis(config, info, elapsed_ms, seconds + microseconds / 1e6 - time.time()))


def judge_redis(
    config: Config, info: dict[str, Any], elapsed_ms: float, skew_s: float
) -> list[Finding]:
    """Judge what Redis says of itself, how long it took and how its clock differs."""
    name = "redis"
    # Of a cluster each node answers for itself; one is as good as another here.
    own = info if "redis_version" in info else next(iter(info.values()), {})
    detail = f"version {own.get('redis_version', '?')}, {elapsed_ms:.1f} ms"
    found = []
    if elapsed_ms > config.redis.timeout_ms:
        text = f"{detail}: slower than redis.timeout_ms = {config.redis.timeout_ms:g}"
        found.append(doubtful(name, text, "a nearer Redis, or a longer redis.timeout_ms"))
    if own.get("maxmemory") and own.get("maxmemory_policy") == "noeviction":
        text = f"{detail}, maxmemory-policy noeviction: once full, it refuses to keep anything"
        found.append(doubtful(name, text, "redis-cli config set maxmemory-policy allkeys-lru"))
    if not own.get("maxmemory") and own.get("redis_version"):
        detail += ", without maxmemory"
    if abs(skew_s) > SKEW_S:
        text = f"Redis' clock differs by {skew_s:+.1f} s from this host's"
        found.append(doubtful("clock", text, "synchronise both hosts (chrony)"))
    return found or [passed(name, detail)]
