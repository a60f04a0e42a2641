"""The backlog, and keys that end, as the metrics show them."""

from __future__ import annotations

import datetime as dt

from prometheus_client import REGISTRY

from ragserve.ingest.figures import show_figures
from ragserve.store.collections import Collection
from ragserve.store.jobs import NewDocument, Runner, enqueue
from ragserve.store.keys import create_key, next_expiries, revoke_key, rotate_key
from ragserve.store.pool import Database


def jobs(state: str) -> float | None:
    return REGISTRY.get_sample_value("ragserve_ingest_jobs", {"state": state})


def overdue() -> float:
    return REGISTRY.get_sample_value("ragserve_ingest_overdue_seconds", {"queue": "documents"}) or 0


async def test_the_backlog_shows(database: Database, collection: Collection) -> None:
    """How many documents wait, and how long the first could have been begun with."""
    await show_figures(database)
    assert (jobs("queued"), jobs("running"), jobs("failed"), overdue()) == (0, 0, 0, 0)
    documents = [NewDocument(id=name, name=name, content=b"text") for name in "abc"]
    await enqueue(database, collection, documents, salt=b"")
    await database.execute("UPDATE jobs SET run_after = now() - interval '90 s'")
    runner = Runner(database)
    await runner.register()
    (job,) = await runner.claim(1)
    await show_figures(database)
    assert (jobs("queued"), jobs("running"), jobs("failed")) == (2, 1, 0)
    assert 90 <= overdue() < 150
    await runner.fail(job, "broken")
    await show_figures(database)
    assert (jobs("queued"), jobs("running"), jobs("failed")) == (2, 0, 1)
    await runner.close()


async def test_keys_that_end_next_show(database: Database) -> None:
    """Soonest first; not those without an end, revoked, or replaced by a rotation."""
    now = dt.datetime.now(dt.UTC)

    async def create(name: str, days: float | None) -> str:
        ends = None if days is None else now + dt.timedelta(days=days)
        key, _ = await create_key(
            database, tenant="acme", name=name, scopes=["query"], expires_at=ends
        )
        return key.id

    later, sooner = await create("later", 20), await create("sooner", 10)
    await create("for ever", None)
    revoked, rotated = await create("revoked", 5), await create("rotated", None)
    await revoke_key(database, revoked)
    await rotate_key(database, rotated, grace_s=60)
    found = await next_expiries(database)
    assert list(found) == [sooner, later]
    assert found[sooner] == (now + dt.timedelta(days=10)).timestamp()
    assert list(await next_expiries(database, 1)) == [sooner]

    def shown(key: str) -> float | None:
        return REGISTRY.get_sample_value("ragserve_key_expiry_timestamp_seconds", {"key": key})

    await show_figures(database)
    assert shown(sooner) == found[sooner]
    await revoke_key(database, sooner)
    await show_figures(database)
    assert (shown(sooner), shown(later)) == (None, found[later])
