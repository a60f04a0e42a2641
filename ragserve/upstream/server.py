"""Calls to one OpenAI-compatible server, each tried once: JSON in, JSON or events out.

Messages name the server and never the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ragserve.errors import ConfigurationError
from ragserve.metrics import UPSTREAM_ERRORS, UPSTREAM_SECONDS
from ragserve.tracing import header_lines, http_span
from ragserve.upstream.exchange import Exchange, Hear, Patience, Skimmer
from ragserve.upstream.failure import CallFailed, ClosedEarly, Refusal
from ragserve.upstream.origin import parse_base_url
from ragserve.upstream.pool import Pool

ERROR_CHARACTERS = 300


class Server:
    """The server at ``base_url``; ``what`` it is for opens every message, ``model`` is its name."""

    def __init__(
        self,
        what: str,
        base_url: str,
        api_key: str,
        *,
        connections: int,
        connect_timeout_s: float,
        timeout_s: float,
        model: str = "",
        ca_file: str = "",
    ) -> None:
        self.origin = parse_base_url(base_url)
        self.what = what
        self.model = model
        self._timeout_s = timeout_s
        self._api_key = _checked(what, api_key)
        self._pool = Pool(
            self.origin,
            connections=connections,
            connect_timeout_s=connect_timeout_s,
            ca_file=ca_file,
        )
        lines = [
            f"Host: {self.origin.authority}",
            "User-Agent: ragserve",
            "Accept: application/json, text/event-stream",
            "Accept-Encoding: identity",
        ]
        if api_key:
            lines.append(f"Authorization: Bearer {self._api_key}")
        self._head = "\r\n".join(lines)

    async def get(self, path: str) -> bytes:
        """Return the reply to a GET; raise ``CallFailed``."""
        return await self._call("GET", path, "", b"", Exchange)

    async def post(
        self,
        path: str,
        content: bytes,
        hear: Hear | None = None,
        patience: Patience | None = None,
        *,
        skimmer: Skimmer | None = None,
        raw: bool = False,
    ) -> bytes:
        """Return the reply to JSON ``content``, or nothing if ``hear`` was told its events.

        Those that ``skimmer`` takes it is not told. ``raw``: it is told the bytes of the stream
        instead, in the pieces in which they arrive.
        """
        lines = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"

        def begin() -> Exchange:
            return Exchange(hear, patience, skimmer=skimmer, raw=raw)

        return await self._call("POST", path, lines, content, begin)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def _call(
        self, method: str, path: str, lines: str, content: bytes, begin: Callable[[], Exchange]
    ) -> bytes:
        """Make a call; ``lines`` are the headers that not all have.

        Until the reply is complete there is one copy of ``content``, which is mostly a long prompt.
        """
        origin = self.origin
        with (
            UPSTREAM_SECONDS.labels(self.what).time(),
            http_span(method, origin.host, origin.port, f"{origin.url}{path}"),
        ):
            first = f"{method} {origin.path}{path} HTTP/1.1"
            head = f"{first}\r\n{self._head}\r\n{header_lines()}{lines}\r\n".encode()
            return await self._request(path, head, content, begin)

    async def _request(
        self, path: str, head: bytes, content: bytes, begin: Callable[[], Exchange]
    ) -> bytes:
        where = f"{self.what} {self.origin.url}{path}"
        try:
            async with asyncio.timeout(self._timeout_s):
                exchange, reply = await self._exchange(head, content, begin)
            if exchange.status != 200:
                raise self._refusal(exchange, reply)
        except TimeoutError as error:
            raise self._failed(
                where, CallFailed(f"no reply within {self._timeout_s:g} s", "timeout")
            ) from error
        except CallFailed as error:
            raise self._failed(where, error) from error
        except asyncio.CancelledError:
            UPSTREAM_ERRORS.labels(self.what, "cancelled").inc()
            raise
        return reply

    async def _exchange(
        self, head: bytes, content: bytes, begin: Callable[[], Exchange]
    ) -> tuple[Exchange, bytes]:
        async with self._pool.slot():
            exchange = begin()
            connection = await self._pool.take()
            try:
                return exchange, await connection.perform(head, content, exchange)
            except ClosedEarly:
                # The server gave up a connection that it found idle; it has not seen the request.
                exchange = begin()
                connection = await self._pool.take(fresh=True)
                return exchange, await connection.perform(head, content, exchange)

    def _failed(self, where: str, error: CallFailed) -> CallFailed:
        UPSTREAM_ERRORS.labels(self.what, error.kind).inc()
        text = f"{where}: {error.message}"
        if self._api_key:
            text = text.replace(self._api_key, "***")
        return CallFailed(
            text, error.kind, retry_after_s=error.retry_after_s, refusal=error.refusal
        )

    def _refusal(self, exchange: Exchange, reply: bytes) -> CallFailed:
        status, headers = exchange.status, exchange.headers
        if self._api_key:
            reply = reply.replace(self._api_key.encode(), b"***")  # before it is cut
        retry_after = headers.get("retry-after")
        kind = headers.get("content-type", "application/octet-stream")
        return CallFailed(
            f"status {status}: {reply.decode(errors='replace')[:ERROR_CHARACTERS]}",
            "throttled" if status == 429 else "server" if status >= 500 else "refused",
            retry_after_s=retry_after_s(retry_after, datetime.now(UTC)),
            refusal=Refusal(status, reply, kind, retry_after),
        )

    def __repr__(self) -> str:
        return f"<Server {self.origin.url} {self._pool!r}>"


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return what ``Retry-After`` asks for, as seconds or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return None


def _checked(what: str, api_key: str) -> str:
    if not api_key.isascii() or not (api_key + "x").isprintable() or " " in api_key:
        raise ConfigurationError(f"{what}: the api_key has characters that no header may have")
    return api_key
