"""Bodies: read within a size and a time, decoded with errors that name the field."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec
from aiohttp import web

from ragserve.errors import DeadlineExceeded, InvalidRequest, TooLarge, UnsupportedFormat
from ragserve.handlers.services import SERVICES
from ragserve.metrics import CLIENTS_DROPPED

T = TypeVar("T")

JSON = "application/json"
JSON_TYPES = frozenset({JSON, "application/octet-stream"})
"""octet-stream is aiohttp's word for no type at all.

Not text/plain or a form: those a web page may send to this server from anybody's browser without
asking (they are CORS-safelisted, Fetch standard, 2.2.2).
"""
GRACE_S = 5.0
"""A body may take so long, however short it is."""
_PATH = re.compile(r"(.*) - at `\$\.?(.*)`$", re.DOTALL)


async def read_json(request: web.Request, kind: type[T]) -> T:
    """Return the request's JSON body as ``kind``."""
    return decode_json(await read_json_body(request), kind)


async def read_json_body(request: web.Request) -> bytes:
    """Return the request's body, which says that it is JSON."""
    # What most clients send need not be taken apart.
    if request.headers.get("Content-Type") != JSON and request.content_type not in JSON_TYPES:
        raise UnsupportedFormat(f"Content-Type {request.content_type}: use application/json")
    return await read_body(request)


async def read_body(request: web.Request) -> bytes:
    """Return the body; refuse one that is too large before reading it, or that takes too long."""
    limit = request.app[SERVICES].config.limits.body_bytes
    try:
        if request.content.is_eof():  # it is all here: no wait, no timer
            body = request.content.read_nowait()
            if len(body) > limit:
                raise TooLarge(f"body: {len(body)} bytes, limits.body_bytes = {limit}")
            return body
        check_length(request)
        async with arriving(request):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(f"body: over limits.body_bytes = {limit}") from error
    except web.RequestPayloadError as error:
        raise InvalidRequest(f"body: {_one_line(error)}") from error


@contextlib.asynccontextmanager
async def arriving(request: web.Request) -> AsyncIterator[None]:
    """Give a body its time: all that is allowed, or less for one whose length is announced.

    Raises ``DeadlineExceeded``, and counts it, when that is over.
    """
    limits = request.app[SERVICES].config.limits
    allowed_s = limits.body_timeout_s
    if request.content_length is not None:
        allowed_s = min(allowed_s, GRACE_S + request.content_length / limits.body_bytes_per_s)
    try:
        async with asyncio.timeout(allowed_s):
            yield
    except TimeoutError as error:
        CLIENTS_DROPPED.labels("body").inc()
        raise DeadlineExceeded(
            f"body: not here within {allowed_s:.0f} s (limits.body_timeout_s ="
            f" {limits.body_timeout_s}, limits.body_bytes_per_s = {limits.body_bytes_per_s})"
        ) from error


def check_length(request: web.Request) -> None:
    """Raise ``TooLarge`` if the body is announced to be over ``limits.body_bytes``."""
    limit = request.app[SERVICES].config.limits.body_bytes
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"body: {request.content_length} bytes, limits.body_bytes = {limit}")


def decode_json(body: bytes, kind: type[T], field: str | None = None, *, strict: bool = True) -> T:
    """Return ``body`` as ``kind``; raise ``InvalidRequest`` that names the field at fault.

    ``field`` is where the JSON stood, if it is not the whole body. Unless ``strict``, a number or
    a truth value may be written as a string.
    """
    try:
        return msgspec.json.decode(body, type=kind, strict=strict)
    except msgspec.ValidationError as error:
        raise invalid_field(error, field) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{field or 'body'}: {error}", param=field) from error
    except RecursionError as error:
        raise InvalidRequest(f"{field or 'body'}: nested too deeply", param=field) from error


def invalid_field(error: msgspec.ValidationError, field: str | None = None) -> InvalidRequest:
    """Return what is wrong with which field, within ``field`` if given."""
    match = _PATH.match(str(error))
    reason, path = (match[1], match[2]) if match else (str(error), "")
    where = ".".join(part for part in (field, path) if part)
    return InvalidRequest(f"{where or 'body'}: {reason}", param=where or None)


def _one_line(error: web.RequestPayloadError) -> str:
    """Return an error of aiohttp's, which has a line each for the status and the reason."""
    return " ".join(str(error).split()).removeprefix("400, message: ")


def json_response(value: object, *, status: int = 200) -> web.Response:
    """Return ``value`` as a JSON response."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )
