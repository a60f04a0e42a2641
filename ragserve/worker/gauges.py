"""What a worker's parts show of themselves whenever the metrics are read."""

from __future__ import annotations

from ragserve.metrics import DATABASE_CONNECTIONS, DATABASE_CONNECTIONS_LIMIT, DEPENDENCY_UP
from ragserve.store.listen import Listener
from ragserve.store.pool import Database
from ragserve.store.redis import Redis


def show_dependencies(database: Database, listener: Listener, redis: Redis | None) -> None:
    """Show the pool, and whether database and Redis can be reached.

    The listening connection is probed every few hundred milliseconds anyway.
    """
    DATABASE_CONNECTIONS.labels("busy").set_function(lambda: database.busy)
    DATABASE_CONNECTIONS.labels("idle").set_function(lambda: database.idle)
    DATABASE_CONNECTIONS_LIMIT.labels("main").set(database.size)
    DEPENDENCY_UP.labels("database").set_function(
        lambda: listener.connected.is_set() and not database.silent
    )
    if redis is not None:
        DEPENDENCY_UP.labels("redis").set_function(lambda: redis.reachable)
