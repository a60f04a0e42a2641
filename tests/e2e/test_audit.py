"""What a server's log says of keys, as it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.e2e.conftest import ragserve, running


async def test_the_log_says_who_is_served_and_who_was_refused(data_dir: Path) -> None:
    """Loudly at the start, while there is no key; then each change and refusal, with no token."""
    async with running(data_dir, "--workers", "1") as server:
        event = await server.event("served_without_a_key")
        assert event["level"] == "warning"
        assert event["served"] == "clients on this machine may do everything, others nothing"
        made = await asyncio.to_thread(ragserve, data_dir, "keys", "create", "ci")
        token = made.stdout.strip()
        key_id = token.split("_")[1]
        await server.event("key_changed", lambda event: event["key"] == key_id)
        headers = {"Authorization": f"Bearer {token}x", "X-Request-ID": "asked"}
        async with server.session.get(f"{server.url}/v1/models", headers=headers) as response:
            assert response.status == 401
        refused = await server.event("key_refused")
        assert (refused["key"], refused["reason"]) == (key_id, "wrong")
        assert (refused["tenant"], refused["request_id"]) == ("default", "asked")
        assert token.split("_", 2)[2] not in str(server.events)


async def test_everybody_is_served_only_when_told_so(data_dir: Path) -> None:
    """auth.allow_anonymous is said at the start, too."""
    anonymous = {"RAGSERVE_AUTH__ALLOW_ANONYMOUS": "true"}
    async with running(data_dir, "--workers", "1", **anonymous) as server:
        event = await server.event("served_without_a_key")
        assert event["served"] == "everybody may do everything"
