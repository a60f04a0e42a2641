"""What a server can do wrong, on a real socket: each failure ends the call and has a name."""

from __future__ import annotations

import asyncio

import pytest

from ragserve.upstream import CallFailed, Patience
from tests.upstream.wire import (
    HEAD,
    KEY,
    PATIENCE,
    Script,
    calling,
    chunk,
    hang,
    heard,
    replies,
    said,
    then,
)

SOON = Patience(first_s=0.05, between_s=0.05)
FAILURES = {
    "hangs": (hang, SOON, "timeout", "nothing heard within 0.05 s"),
    "hangs after the head": (then(HEAD), SOON, "timeout", "nothing heard within 0.05 s"),
    "hangs in mid-stream": (
        then(HEAD + said("a")),
        Patience(30.0, 0.05),
        "timeout",
        "silent for 0.05 s in mid-stream",
    ),
    "only comments": (
        then(HEAD + chunk(b": ping\n\n")),
        SOON,
        "timeout",
        "nothing heard within 0.05 s",
    ),
    "closes without a reply": (then(b"", close=True), PATIENCE, "closed", "without a reply"),
    "closes in mid-stream": (
        then(HEAD + said("a"), close=True),
        PATIENCE,
        "closed",
        "in the midst of a reply",
    ),
    "resets in mid-stream": (then(HEAD + said("a"), reset=True), PATIENCE, "closed", "connection"),
    "is throttled": (
        replies(b"HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"),
        PATIENCE,
        "throttled",
        "status 429: busy",
    ),
    "is broken": (
        replies(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"),
        PATIENCE,
        "server",
        "status 500: oops",
    ),
    "refuses": (
        replies(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"),
        PATIENCE,
        "refused",
        "status 400",
    ),
    "shows the key": (
        replies(b"HTTP/1.1 401 No\r\nContent-Length: 14\r\n\r\n" + KEY.encode()),
        PATIENCE,
        "refused",
        r"status 401: \*\*\*$",
    ),
    "speaks no HTTP": (then(b"SSH-2.0-OpenSSH\r\n"), PATIENCE, "garbage", "no HTTP reply"),
    "upgrades": (
        then(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
        PATIENCE,
        "garbage",
        "no HTTP reply",
    ),
    "breaks its chunks": (then(HEAD + b"zz\r\n"), PATIENCE, "garbage", "no HTTP reply"),
    "compresses": (
        then(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n"),
        PATIENCE,
        "garbage",
        "content-encoding gzip",
    ),
    "has a giant head": (
        then(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000),
        PATIENCE,
        "size",
        "head over 65536 bytes",
    ),
    "has a giant event": (
        then(HEAD + chunk(b"data: " + b"x" * 2**20 + b"\n")),
        PATIENCE,
        "size",
        "an event over 1048576 bytes",
    ),
}


@pytest.mark.parametrize(
    ("script", "patience", "kind", "text"), FAILURES.values(), ids=FAILURES.keys()
)
async def test_failures_have_a_name(
    script: Script, patience: Patience, kind: str, text: str
) -> None:
    """Whatever goes wrong ends the call, names server and reason, and leaves nothing open."""
    async with calling(script) as (server, state):
        with pytest.raises(CallFailed, match=text) as failed:
            async with asyncio.timeout(30):
                await heard(server, patience)
        assert failed.value.kind == kind
        assert failed.value.message.startswith(f"model http://127.0.0.1:{state.port}/v1/chat: ")
        assert KEY not in failed.value.message
        assert "0 busy" in repr(server)
        if kind not in ("throttled", "server", "refused"):
            await state.until_ended(1)
