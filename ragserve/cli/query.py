"""``query``: ask the database directly, or a running server."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import aiohttp
import click
import msgspec

from ragserve.cli.remote import Remote
from ragserve.cli.waiting import database_here, telling
from ragserve.config import Config
from ragserve.errors import RagserveError, Unavailable
from ragserve.flow.principal import OWNER
from ragserve.schema import ErrorResponse, QueryRequest, QueryResponse
from ragserve.store.migrate import prepare_database


def run(
    config: Config,
    data_dir: Path,
    text: str,
    collection: str,
    top_k: int | None,
    remote: Remote | None,
    as_json: bool,
) -> int:
    """Ask and print the answer with its sources."""
    request = QueryRequest(query=text, collection=collection, top_k=top_k)
    if remote is not None:
        response = asyncio.run(_ask_server(remote, request, config.server.request_timeout_s))
    else:
        with database_here(config, data_dir) as dsn, telling("loading the embedder"):
            response = asyncio.run(_ask_here(config, data_dir, dsn, request))
    click.echo(msgspec.json.encode(response) if as_json else _readable(response))
    return 0


async def _ask_here(
    config: Config, data_dir: Path, dsn: str, request: QueryRequest
) -> QueryResponse:
    from ragserve.worker.app import open_services

    await prepare_database(dsn, config.database.connect_timeout_s)
    async with open_services(config, data_dir, dsn) as services:
        return await services.pipeline.query(request, services.context(OWNER, time.monotonic()))


async def _ask_server(remote: Remote, request: QueryRequest, timeout_s: float) -> QueryResponse:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout_s)) as session,
            session.post(
                remote.base + "v1/query",
                data=msgspec.json.encode(request),
                headers={"Content-Type": "application/json", **remote.headers},
            ) as response,
        ):
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise unreachable(remote, error) from error
    if response.status != 200:
        raise RagserveError(error_message(remote.url, response.status, body))
    return msgspec.json.decode(body, type=QueryResponse)


def unreachable(remote: Remote, error: Exception) -> Unavailable:
    """Return what to tell of a server that gave no answer."""
    if not isinstance(error, aiohttp.ClientConnectorError):
        return Unavailable(f"{remote.url}: {error or type(error).__name__}")
    cause = error.os_error
    said = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or cause
    return Unavailable(f"cannot connect to {remote.url}: {said}; does `ragserve serve` run there?")


def error_message(url: str, status: int, body: bytes) -> str:
    """Return what a server said went wrong."""
    try:
        return msgspec.json.decode(body, type=ErrorResponse).error.message
    except msgspec.MsgspecError:
        return f"{url}: status {status}"


def _readable(response: QueryResponse) -> str:
    lines = [response.answer, ""]
    for citation in response.citations:
        place = [citation.title]
        if citation.heading:
            place.append(str(citation.heading))
        if citation.page:
            place.append(f"page {citation.page}")
        lines.append(f"[{citation.index}] {' · '.join(place)}")
        lines.append(f"    {citation.url or citation.document_id}")
    if response.degraded:
        lines.append(f"(degraded: without {', '.join(response.degraded)})")
    return "\n".join(lines).rstrip()
