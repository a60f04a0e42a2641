"""A server under load whose primary dies and whose standby takes over: what its clients see."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from tests.conftest import own_directory
from tests.e2e.conftest import running
from tests.postgres_pair import postgres_pair

RATE_PER_S = 40
FACTS = {
    "lunch": "Lunch is served at noon in the canteen.",
    "office": "The office opens at nine in the morning.",
}


async def test_a_failover_under_load(postgres: str, data_dir: Path) -> None:
    """Right, degraded or clearly refused; none wrong, none lost, and right again within seconds."""
    assert postgres
    seen: Counter[str] = Counter()
    seen_after: Counter[str] = Counter()
    with own_directory() as directory:
        directory.chmod(0o755)
        with postgres_pair(directory) as (first, second):
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
            dsn = f"postgresql://postgres@{hosts}/postgres"
            async with running(data_dir, "--workers", "1", DATABASE_URL=dsn) as server:
                for name, text in FACTS.items():
                    body = {"id": name, "text": text}
                    status, _ = await server.call("POST", "/v1/documents?wait=30", body)
                    assert status == 200
                count = 0

                async def ask(into: Counter[str]) -> None:
                    nonlocal count
                    count += 1
                    topic = list(FACTS)[count % 2]
                    question = {"query": f"{topic} {count}", "timeout": 5}
                    status, answer = await server.call("POST", "/v1/search", question)
                    if status != 200:
                        into[f"refused {status}"] += 1
                        assert answer["error"]["code"] in ("unavailable", "deadline_exceeded")
                    elif answer["results"][0]["text"] != FACTS[topic]:
                        into["wrong"] += 1
                    else:
                        into["degraded" if "degraded" in answer else "right"] += 1

                async def load(seconds: float, into: Counter[str]) -> None:
                    async with asyncio.TaskGroup() as group:
                        until = time.monotonic() + seconds
                        while time.monotonic() < until:
                            group.create_task(ask(into))
                            await asyncio.sleep(1 / RATE_PER_S)

                await load(1.0, seen)
                assert set(seen) == {"right"}
                async with asyncio.TaskGroup() as group:
                    loading = group.create_task(load(8.0, seen))
                    await asyncio.sleep(1.0)
                    await asyncio.to_thread(first.stop)
                    await asyncio.sleep(2.0)
                    status, error = await server.call(
                        "POST", "/v1/documents", {"id": "new", "text": "New."}
                    )
                    assert (status, error["error"]["code"]) == (503, "unavailable")
                    await asyncio.to_thread(second.promote)
                    await loading
                assert set(seen) <= {"right", "degraded"}, seen
                assert seen["degraded"] > 0
                await load(1.0, seen_after)
                assert set(seen_after) == {"right"}, seen_after
                status, _ = await server.call(
                    "POST", "/v1/documents?wait=30", {"id": "new", "text": "New."}
                )
                assert status == 200
