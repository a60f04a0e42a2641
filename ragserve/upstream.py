"""HTTP to OpenAI-compatible servers: one JSON document out, one in, with retries.

Transient failures (no connection, a timeout, 429, 5xx) are tried again with jittered backoff;
anything else fails at once. Messages name the server and never the key.
"""

from __future__ import annotations

import aiohttp
import msgspec
import stamina

from ragserve.errors import UpstreamFailed

ERROR_CHARACTERS = 300
MAX_REPLY_BYTES = 64 * 1024**2


class TransientFailure(UpstreamFailed):
    """A failure that may pass."""


class Upstream:
    """One server, reached under ``base_url`` with a keep-alive pool of ``connections``."""

    def __init__(
        self,
        what: str,
        base_url: str,
        api_key: str,
        *,
        connections: int,
        connect_timeout_s: float,
        timeout_s: float,
        attempts: int,
    ) -> None:
        self._what = what
        self._base_url = base_url.rstrip("/")
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._api_key = api_key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=aiohttp.ClientTimeout(total=timeout_s, connect=connect_timeout_s),
            auto_decompress=True,
        )

    async def post(self, path: str, body: object) -> bytes:
        """Return the reply to ``body`` sent as JSON; raise ``UpstreamFailed``."""
        content = msgspec.json.encode(body)
        async for attempt in stamina.retry_context(
            on=TransientFailure,
            attempts=self._attempts,
            timeout=self._timeout_s,
            wait_initial=0.1,
            wait_max=5.0,
            wait_jitter=0.5,
        ):
            with attempt:
                return await self._request("POST", path, content)
        raise AssertionError("stamina tries at least once")

    async def get(self, path: str) -> bytes:
        """Return the reply, tried once."""
        return await self._request("GET", path, None)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _request(self, method: str, path: str, content: bytes | None) -> bytes:
        url = self._base_url + path
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            async with self._session.request(
                method, url, data=content, headers=headers
            ) as response:
                reply = await self._read(url, response)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise TransientFailure(f"{self._what} {url}: {reason}") from error
        if status == 200:
            return reply
        kind = TransientFailure if status == 429 or status >= 500 else UpstreamFailed
        shown = self._without_key(reply.decode(errors="replace"))[:ERROR_CHARACTERS]
        raise kind(f"{self._what} {url}: status {status}: {shown}")

    async def _read(self, url: str, response: aiohttp.ClientResponse) -> bytes:
        reply = bytearray()
        async for piece in response.content.iter_any():
            reply += piece
            if len(reply) > MAX_REPLY_BYTES:
                raise UpstreamFailed(f"{self._what} {url}: a reply over {MAX_REPLY_BYTES} bytes")
        return bytes(reply)

    def _without_key(self, text: str) -> str:
        """Return what a server said, should it quote the key it was given."""
        return text.replace(self._api_key, "***") if self._api_key else text
