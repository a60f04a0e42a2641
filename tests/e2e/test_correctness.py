"""No wrong answers: real workers, Redis, and documents that change all the time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.correctness import Run
from tests.e2e.conftest import running
from tests.redis_server import redis_server


@pytest.mark.parametrize(
    ("with_redis", "questions", "changes"),
    [
        (True, 1000, 20),
        pytest.param(True, 100_000, 500, marks=pytest.mark.nightly),
        pytest.param(False, 100_000, 500, marks=pytest.mark.nightly),
    ],
)
async def test_no_answer_is_stale_or_foreign(
    data_dir: Path, with_redis: bool, questions: int, changes: int
) -> None:
    """Two workers, three collections: nothing older than a second, nothing of another's."""
    with redis_server() as redis:
        settings = {"RAGSERVE_REDIS__URL": redis.url} if with_redis else {}
        async with running(data_dir, "--workers", "2", **settings) as server:
            await server.event("worker_ready", count=2)
            async with asyncio.timeout(60 + 2 * changes + questions / 20):
                report = await Run(server.url, 2, seed=1).run(questions, changes, clients=3)
    assert report.examples == []
    assert report.wrong == 0
    assert report.questions >= questions
    assert report.changes >= changes
    assert report.statuses["ragserve; hit; detail=memory"] > 0
    assert (report.statuses["ragserve; hit; detail=redis"] > 0) == with_redis
