"""Limits of a running application: told in the head, refused in time, for the right client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import Api, configured, serving

QUESTION = {"query": "when is lunch"}
DOCUMENT = {"documents": [{"id": "a", "text": "Lunch is at noon."}]}


@pytest.fixture
async def limited(tmp_path: Path, dsn: str) -> AsyncIterator[Api]:
    """Three questions a minute; nothing else is limited. Loopback is a trusted proxy."""
    config = configured(
        rate__query_per_minute=3,
        server__trusted_proxies="127.0.0.0/8",
        auth__allow_anonymous=True,
    )
    async with serving(config, tmp_path, dsn) as api:
        assert (await api.post("/v1/documents?wait=30", DOCUMENT))[0] == 200
        yield api


async def ask(api: Api, client: str, **more: object) -> tuple[int, dict[str, str]]:
    """Ask for a client of the proxy's; return the status and the head."""
    async with api.client.post(
        "/v1/query", json={**QUESTION, **more}, headers={"X-Forwarded-For": client}
    ) as response:
        await response.read()
        return response.status, dict(response.headers)


async def test_the_fourth_question_is_refused(limited: Api) -> None:
    """Answers say what is left, streams, too; the refusal says when to come back."""
    for left, more in ((2, {}), (1, {"stream": True}), (0, {})):
        status, head = await ask(limited, "203.0.113.7", **more)
        assert (status, head["x-ratelimit-remaining-requests"]) == (200, str(left))
        assert head["RateLimit-Policy"] == '"query";q=3;w=60'
    status, head = await ask(limited, "203.0.113.7")
    assert status == 429
    assert 1 <= int(head["Retry-After"]) <= 20
    body = (await limited.post("/v1/search", QUESTION))[1]
    assert body["results"], "another class"


async def test_addresses_cannot_be_invented(limited: Api) -> None:
    """What a client puts before its own address changes nothing; its neighbours have their own."""
    forged = [await ask(limited, f"198.51.100.{n}, 203.0.113.7") for n in range(4)]
    assert [status for status, _ in forged] == [200, 200, 200, 429]
    assert (await ask(limited, "203.0.113.8"))[0] == 200
    network = [await ask(limited, f"2001:db8::{n}") for n in range(1, 5)]
    assert [status for status, _ in network] == [200, 200, 200, 429]
