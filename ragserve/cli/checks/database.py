"""PostgreSQL: there, new enough, with pgvector, migrated, with room for us and the same time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import asyncpg

from ragserve.cli.checks.finding import Finding, doubtful, failed, passed
from ragserve.config import Config
from ragserve.errors import RagserveError, Unavailable
from ragserve.ingest.run import CONNECTIONS
from ragserve.store.dial import UNREACHABLE, dial
from ragserve.store.migrate import check_server, migrations, pending_migrations

SKEW_S = 1.0
KEY_DAYS = 14
"""A key that ends within so many days is worth a word."""
SPARE_CONNECTIONS = 5
"""For commands, and for a person with psql."""
REACH = "is it running, may this host connect (pg_hba.conf), and is database.dsn right?"
CREATE = "make it (createdb), see PostgreSQL in conf/README.md"
LOOPBACK = ("127.", "::1", "localhost")


async def check_database(config: Config, dsn: str) -> list[Finding]:
    """Return what can be said of the database at ``dsn``, its replica, and the keys in it."""
    try:
        connection = await connect(config, dsn)
    except Unavailable as error:
        missing = isinstance(error.__cause__, asyncpg.InvalidCatalogNameError)
        return [failed("database", error, CREATE if missing else REACH)]
    try:
        await check_server(connection)
        pending = await pending_migrations(connection)
        found = [*await _server(config, connection), _migrations(len(pending))]
        if not pending:
            found += await _keys(config, connection)
    except RagserveError as error:
        found = [failed("database", error, "conf/README.md says what the database must be")]
    finally:
        await connection.close(timeout=1.0)
    if config.database.replica_dsn:
        found.append(await _replica(config))
    return found


async def connect(config: Config, dsn: str) -> asyncpg.Connection:
    """Return a connection to whoever takes writes."""
    try:
        return await dial(dsn, timeout=config.database.connect_timeout_s)
    except UNREACHABLE as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"cannot connect: {reason}") from error


async def _server(config: Config, connection: asyncpg.Connection) -> list[Finding]:
    row = await connection.fetchrow(
        "SELECT current_setting('server_version') AS version,"
        " (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS pgvector,"
        " current_setting('max_connections')::int AS most,"
        " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        "  AND application_name <> 'ragserve' AND pid <> pg_backend_pid()) AS others,"
        " clock_timestamp() AS now, pg_database_size(current_database()) AS size"
    )
    own = config.database.connections + CONNECTIONS + SPARE_CONNECTIONS
    kind = "configured" if config.database.dsn else "embedded"
    detail = (
        f"{kind} PostgreSQL {row['version']}, pgvector {row['pgvector']},"
        f" {row['size'] / 1e6:.0f} MB, {row['most']} connections"
    )
    found = [passed("database", detail)]
    if row["others"] + own > row["most"]:
        found[0] = doubtful(
            "database",
            f"{detail}; this host takes {own}, others hold {row['others']} now",
            "a larger max_connections in postgresql.conf, or a smaller database.connections",
        )
    skew_s = abs((row["now"] - dt.datetime.now(dt.UTC)).total_seconds())
    if skew_s > SKEW_S:
        text = f"the database's clock differs by {skew_s:.1f} s: keys expire by both"
        found.append(doubtful("clock", text, "synchronise both hosts (chrony)"))
    return found


def _migrations(pending: int) -> Finding:
    if pending == len(migrations()):
        return passed("migrations", "an empty database: the first start makes its tables")
    if pending:
        text = f"{pending} pending; the next server start applies them"
        return doubtful("migrations", text, "ragserve migrate, after ragserve backup")
    return passed("migrations", "none pending")


async def _keys(config: Config, connection: asyncpg.Connection) -> list[Finding]:
    rows = await connection.fetch(
        "SELECT name, expires_at FROM keys"
        " WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
    )
    ever = await connection.fetchval("SELECT EXISTS (SELECT FROM keys)")
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=KEY_DAYS)
    ending = [row["name"] for row in rows if row["expires_at"] and row["expires_at"] < soon]
    return list(judge_keys(config, len(rows), ending, ever=ever))


def judge_keys(config: Config, valid: int, ending: list[str], *, ever: bool) -> Iterator[Finding]:
    """Judge who may ask: ``valid`` keys, of which ``ending`` end soon; ``ever`` was there one."""
    name, host = "keys", config.server.host
    public = not host.startswith(LOOPBACK)
    create = 'ragserve keys create "NAME" --scope query'
    if config.auth.allow_anonymous and public:
        what = "ask" if ever else "ask, write and administer"
        text = f"auth.allow_anonymous: whoever reaches {host} may {what} without a key"
        yield doubtful(name, text, f"{create}; auth.allow_anonymous = false")
    elif ever and not valid:
        yield failed(name, "all are revoked or expired: nobody is served", create)
    elif not ever and public:
        text = f"none: only this machine is served, though the server listens on {host}"
        yield doubtful(name, text, create)
    elif not ever:
        yield passed(name, "none: clients on this machine may do everything, others nothing")
    else:
        yield passed(name, f"{valid} valid")
    if ending:
        text = f"end within {KEY_DAYS} days: {', '.join(sorted(ending))}"
        yield doubtful(name, text, "ragserve keys rotate ID")


async def _replica(config: Config) -> Finding:
    name = "replica"
    dsn = config.database.replica_dsn
    try:
        connection = await asyncpg.connect(dsn, timeout=config.database.connect_timeout_s)
    except UNREACHABLE as error:
        text = f"cannot connect: {error or type(error).__name__}; searches go to the primary"
        return doubtful(name, text, "database.replica_dsn")
    try:
        standby = await connection.fetchval("SELECT pg_is_in_recovery()")
    finally:
        await connection.close(timeout=1.0)
    if not standby:
        return doubtful(name, "it is no standby", "database.replica_dsn names another server")
    return passed(name, "a hot standby")
