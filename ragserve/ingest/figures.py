"""What the database says of the work ahead and of keys that end, for the metrics.

The ingest process looks, since it is one a host and has time; every host's says the same.
"""

from __future__ import annotations

from ragserve.metrics import INGEST_JOBS, INGEST_OVERDUE, KEY_EXPIRY
from ragserve.store.jobs import count_jobs, overdue_s
from ragserve.store.keys import next_expiries
from ragserve.store.pool import Database


async def show_figures(database: Database) -> None:
    """Look once; raise ``Unavailable``."""
    for state, number in (await count_jobs(database)).items():
        INGEST_JOBS.labels(state).set(number)
    INGEST_OVERDUE.labels("documents").set(await overdue_s(database))
    expiries = await next_expiries(database)
    KEY_EXPIRY.clear()
    for key_id, at in expiries.items():
        KEY_EXPIRY.labels(key_id).set(at)
