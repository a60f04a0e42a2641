"""Calls on a real socket: every way in which a server can answer, or fail to."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from ragserve.errors import ConfigurationError, Overloaded
from ragserve.upstream import CallFailed, Server
from ragserve.upstream import connection as connections
from ragserve.upstream import exchange as exchanges
from ragserve.upstream.pool import WAITING_PER_CONNECTION
from ragserve.upstream.server import retry_after_s
from tests.upstream.wire import (
    END,
    HEAD,
    JSON,
    KEY,
    PATIENCE,
    Client,
    calling,
    chunk,
    hang,
    heard,
    replies,
    said,
    then,
    wire,
)


async def test_a_request_is_what_a_server_expects() -> None:
    """Path, host, key and length are there; the reply is the body."""
    seen: list[bytes] = []

    async def script(client: Client) -> None:
        seen.append(await client.request())
        await client.send(JSON)
        await client.gone()

    async with calling(script) as (server, state):
        assert await server.post("/chat", b'{"a": 1}') == b"{}"
    head, body = seen[0].split(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert (lines[0], body) == (b"POST /v1/chat HTTP/1.1", b'{"a": 1}')
    assert b"Host: 127.0.0.1:%d" % state.port in lines
    assert f"Authorization: Bearer {KEY}".encode() in lines
    assert b"Content-Length: 8" in lines


BODIES = {
    "of a stated length": JSON,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"{}") + chunk(b""),
    "after an interim response": b"HTTP/1.1 100 Continue\r\n\r\n" + JSON,
}


@pytest.mark.parametrize("reply", BODIES.values(), ids=BODIES.keys())
async def test_replies_are_read_however_they_end(reply: bytes) -> None:
    """A body is read to its end, and the connection is used again."""
    async with calling(replies(reply, reply)) as (server, state):
        assert [await server.post("/chat", b"") for _ in range(2)] == [b"{}", b"{}"]
        assert state.connections == 1


async def test_a_reply_may_end_with_its_connection() -> None:
    """Without a length the body is what comes until the server closes."""

    async def script(client: Client) -> None:
        await client.request()
        await client.send(b"HTTP/1.0 200 OK\r\n\r\n{")
        await client.send(b"}")

    async with calling(script) as (server, state):
        assert [await server.get("/models") for _ in range(2)] == [b"{}", b"{}"]
        assert state.connections == 2


async def test_a_stream_is_heard_as_it_comes() -> None:
    """Each event is heard before the next one is sent; the connection is used again."""
    said_now = asyncio.Queue[bytes]()

    async def script(client: Client) -> None:
        while await client.request():
            await client.send(HEAD)
            for word in ("a", "b", "c"):
                await client.send(said(word))
                assert await said_now.get() == word.encode()
            await client.send(said("[DONE]"))
            await client.send(chunk(b""))

    def hear(events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            said_now.put_nowait(event)

    async with calling(script) as (server, state):
        for _ in range(3):
            assert await server.post("/chat", b"{}", hear, PATIENCE) == b""
        assert state.connections <= 3


async def test_bytes_may_come_one_by_one() -> None:
    """A slow drip of single bytes is the same stream."""

    async def script(client: Client) -> None:
        await client.request()
        for byte in HEAD + said("a", "b") + END:
            await client.send(bytes([byte]))
        await client.gone()

    async with calling(script) as (server, _):
        assert await heard(server) == [b"a", b"b"]


async def test_events_may_end_without_done() -> None:
    """A stream that simply ends has been heard."""
    async with calling(replies(HEAD + said("a") + chunk(b""))) as (server, _):
        assert await heard(server) == [b"a"]


async def test_a_server_need_not_stream() -> None:
    """JSON in place of events is the whole reply, whatever patience there is with events."""
    async with calling(replies(JSON)) as (server, _):
        events: list[bytes] = []
        assert await server.post("/chat", b"{}", events.extend, PATIENCE) == b"{}"
        assert events == []


async def test_a_reply_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole reply over the bound is given up."""
    monkeypatch.setattr(exchanges, "MAX_REPLY_BYTES", 1000)
    async with calling(then(HEAD.replace(b"event-stream", b"json") + chunk(b"x" * 1001))) as (
        server,
        _,
    ):
        with pytest.raises(CallFailed, match="a reply over 1000 bytes"):
            await server.get("/models")


async def test_a_call_takes_no_longer_than_its_time() -> None:
    """A stream that never ends is ended, however lively it is."""

    async def endless(client: Client) -> None:
        await client.request()
        await client.send(HEAD)
        while True:
            await client.send(said("a"))
            await asyncio.sleep(0)

    async with calling(endless, timeout_s=0.2) as (server, state):
        with pytest.raises(CallFailed, match=r"no reply within 0\.2 s") as failed:
            await heard(server)
        assert failed.value.kind == "timeout"
        await state.until_ended(1)


async def test_nobody_there() -> None:
    """A refused connection is named."""
    async with wire(hang) as state:
        port = state.port
    server = Server(
        "model", f"http://127.0.0.1:{port}", "", connections=1, connect_timeout_s=9, timeout_s=9
    )
    with pytest.raises(CallFailed) as failed:
        await server.get("/models")
    assert failed.value.kind == "connect"
    await server.close()


async def test_a_stale_connection_is_replaced_unseen() -> None:
    """An idle connection that the server closes as it is used costs nothing but a new one."""
    reused = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(JSON)
        if not reused.is_set() and await client.request():
            reused.set()
            return  # without a byte
        await client.gone()

    async with calling(script) as (server, state):
        assert [await server.get("/models") for _ in range(2)] == [b"{}", b"{}"]
        assert reused.is_set()
        assert state.connections == 2


async def test_a_reused_connection_that_breaks_a_reply_is_no_stale_one() -> None:
    """After the first byte nothing is repeated behind the caller's back."""
    second = HEAD + said("a")

    async def script(client: Client) -> None:
        await client.request()
        await client.send(JSON)
        await client.request()
        await client.send(second)

    async with calling(script) as (server, state):
        await server.get("/models")
        with pytest.raises(CallFailed, match="in the midst of a reply"):
            await heard(server)
        assert state.connections == 1


async def test_cancelling_closes_the_connection() -> None:
    """Whoever leaves in mid-stream takes the connection with it, and the next call works."""
    first = asyncio.Event()
    cut: list[bool] = []

    async def script(client: Client) -> None:
        await client.request()
        if not cut:
            cut.append(True)
            await client.send(HEAD + said("a"))
            await client.gone()
            return
        await client.send(JSON)
        await client.gone()

    async with calling(script, connections=1) as (server, state):
        call = asyncio.create_task(server.post("/chat", b"{}", lambda _: first.set(), PATIENCE))
        async with asyncio.timeout(30):
            await first.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await state.until_ended(1)
        assert await server.get("/models") == b"{}"


async def test_callers_wait_in_turn_and_in_bounds() -> None:
    """No more exchanges than connections; a queue too long is refused; who is cancelled leaves."""
    async with calling(hang, connections=1) as (server, state):
        most = WAITING_PER_CONNECTION + 1
        calls = [asyncio.create_task(server.get("/models")) for _ in range(most)]
        await asyncio.sleep(0)  # each has taken its place
        assert f"{most - 1} waiting" in repr(server)
        with pytest.raises(Overloaded, match=f"{most - 1} calls wait already"):
            await server.get("/models")
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert "0 busy, 0 idle, 0 waiting" in repr(server)
        assert state.connections <= 1


async def test_what_nobody_asked_for_ends_an_idle_connection() -> None:
    """Bytes after a reply are no reply to the next request."""
    async with calling(replies(JSON + JSON)) as (server, state):
        assert await server.get("/models") == b"{}"
        assert await server.get("/models") == b"{}"
        assert state.connections == 2


async def test_a_body_kept_open_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """[DONE] ends a call at once; the connection is closed if its body does not end soon."""
    monkeypatch.setattr(connections, "LINGER_S", 0.01)
    async with calling(then(HEAD + said("a", "[DONE]"))) as (server, state):
        assert await heard(server) == [b"a"]
        await state.until_ended(1)


def test_retry_after_is_seconds_or_a_date() -> None:
    """Both forms of RFC 9110 are understood; nonsense is none."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("7", now) == 7.0
    assert retry_after_s("Thu, 01 Jan 2026 00:00:09 GMT", now) == 9.0
    assert retry_after_s("Thu, 01 Jan 2020 00:00:09 GMT", now) == 0.0
    assert [retry_after_s(value, now) for value in (None, "", "soon", "-1")] == [None] * 4


@pytest.mark.parametrize("key", ["a\r\nX: y", "a b", "schlüssel", "a\n"])
async def test_a_key_that_no_header_may_have(key: str) -> None:
    """Such a key is refused without being shown."""
    with pytest.raises(ConfigurationError) as refused:
        Server("model", "http://h", key, connections=1, connect_timeout_s=1, timeout_s=1)
    assert key not in refused.value.message


async def test_https_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of a known authority is accepted; any other one fails the connection."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    async with wire(replies(HEAD + said("a") + END), tls) as state:
        url = f"https://localhost:{state.port}/v1"
        times = {"connect_timeout_s": 10.0, "timeout_s": 10.0}
        stranger = Server("model", url, "", connections=1, **times)
        with pytest.raises(CallFailed, match="certificate verify failed") as failed:
            await heard(stranger)
        assert failed.value.kind == "connect"
        await stranger.close()
        told = Server("model", url, "", connections=1, ca_file=str(tmp_path / "ca.pem"), **times)
        assert await heard(told) == [b"a"]
        await told.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        known = Server("model", url, "", connections=1, **times)
        assert await heard(known) == [b"a"]
        await known.close()


async def test_a_certificate_names_its_host(tmp_path: Path) -> None:
    """Known as its authority may be: who has one for another host is told nothing, and it shows."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("models.example").configure_cert(tls)
    heard_of: list[bytes] = []

    async def script(client: Client) -> None:
        heard_of.append(await client.request())

    async with wire(script, tls) as state:
        server = Server(
            "model",
            f"https://localhost:{state.port}/v1",
            KEY,
            connections=1,
            connect_timeout_s=10,
            timeout_s=10,
            ca_file=str(tmp_path / "ca.pem"),
        )
        with pytest.raises(CallFailed, match="is not valid for 'localhost'") as failed:
            await server.get("/models")
        assert failed.value.kind == "connect"
        assert f"model https://localhost:{state.port}/v1/models: " in failed.value.message
        await server.close()
        assert heard_of in ([], [b""]), "no request was sent"


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_authorities_that_are_none(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not there, or holds no certificate, is named when the server starts."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"ca_file '.*ca\.pem'"):
        Server(
            "model",
            "https://h/v1",
            "",
            connections=1,
            connect_timeout_s=1,
            timeout_s=1,
            ca_file=str(file),
        )


async def test_proxies_of_the_environment_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions and documents go to the server that is configured, and through nobody else."""
    async with wire(hang) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        async with calling(replies(JSON)) as (server, _):
            assert await server.get("/models") == b"{}"
        assert proxy.connections == 0
