"""``restore``: a backup into a database, all of it or nothing.

Versions of collections are what caches and search indexes go by. A restored collection must not
give anew a version that was given before, on this host, another one, or in Redis: so all of them
move on to the present time in milliseconds, which no count of changes has reached.
"""

from __future__ import annotations

import asyncio
import os
import time
import zipfile
from pathlib import Path

import asyncpg
import click

from ragserve.cli.archive import CONFIGURATION, DATABASE, Manifest, listed, open_archive
from ragserve.cli.backup import connect, count_rows
from ragserve.cli.transfer import Transfer
from ragserve.cli.waiting import database_here, telling
from ragserve.config import Config
from ragserve.errors import Conflict, RagserveError
from ragserve.host.members import members, run_directory
from ragserve.ingest.run import try_lock
from ragserve.store.dump import Programs, pieces, quoted
from ragserve.store.migrate import check_server, migrations, prepare_database

LOCK_TIMEOUT_S = 10
FUNCTIONS = ("notify_key",)
"""What the migrations make besides tables."""
OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'ragserve' AND pid <> pg_backend_pid()"
)


def run(config: Config, data_dir: Path, file: Path, *, force: bool) -> int:
    """Restore ``file``; over existing data only if ``force``."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with open_archive(file) as (archive, manifest), try_lock(data_dir) as free:
        directory = run_directory(config.storage, data_dir, os.environ)
        if not free or members(directory)[0]:
            raise Conflict(f"a server uses {data_dir}: stop it first")
        _check_versions(file, manifest)
        with database_here(config, data_dir) as dsn, telling("writing the database"):
            asyncio.run(_restore(config, dsn, archive, manifest, force=force))
    restored = {name: manifest.tables[name] for name in ("collections", "documents")}
    click.echo(
        f"restored {listed(restored)} as of "
        f"{manifest.created_at:%Y-%m-%d %H:%M} UTC; the search index is built by the next server"
    )
    click.echo(f"the settings of then, without secrets: unzip -p {file} {CONFIGURATION}")
    return 0


def _check_versions(file: Path, manifest: Manifest) -> None:
    newest = migrations()[-1].number
    if manifest.migration > newest:
        raise RagserveError(
            f"{file} has migration {manifest.migration}, this ragserve knows {newest}: "
            f"use ragserve {manifest.ragserve} or newer"
        )


async def _restore(
    config: Config, dsn: str, archive: zipfile.ZipFile, manifest: Manifest, *, force: bool
) -> None:
    connection = await connect(config, dsn)
    try:
        await check_server(connection)
        there = await _existing(connection, manifest, force=force)
        major = int(await connection.fetchval("SHOW server_version_num")) // 10_000
    finally:
        await connection.close(timeout=1.0)
    programs = await asyncio.to_thread(Programs, major, dsn)
    before = [f"SET lock_timeout = '{LOCK_TIMEOUT_S}s';"]
    before += [f"DROP TABLE {_table(manifest.schema, name)} CASCADE;" for name in there]
    before += [f"DROP FUNCTION IF EXISTS {_table(manifest.schema, name)};" for name in FUNCTIONS]
    size = archive.getinfo(DATABASE).file_size
    with archive.open(DATABASE) as dump, Transfer("restoring", size) as transfer:
        await asyncio.to_thread(
            programs.load,
            manifest.schema,
            pieces(dump, transfer.note),
            "\n".join(before),
            _finish(manifest),
        )
    await prepare_database(dsn, config.database.connect_timeout_s)


async def _existing(
    connection: asyncpg.Connection, manifest: Manifest, *, force: bool
) -> list[str]:
    """Return the tables that make room; refuse what must not be."""
    if others := await connection.fetchval(OTHERS):
        raise Conflict(f"ragserve has {others} connections to the database: stop every server")
    schema = await connection.fetchval("SELECT current_schema()")
    if schema != manifest.schema:
        raise RagserveError(
            f"the backup is of schema {manifest.schema}, the database's is {schema}"
        )
    server = int(await connection.fetchval("SHOW server_version_num"))
    if server // 10_000 < manifest.postgres // 10_000:
        raise RagserveError(
            f"the backup is of PostgreSQL {manifest.postgres // 10_000}, "
            f"this one is {server // 10_000}: an older one cannot take it"
        )
    counts = await count_rows(connection)
    held = {name: rows for name, rows in counts.items() if rows and name != "migrations"}
    if held and not force:
        raise Conflict(f"the database holds {listed(held)}: --force replaces all of it")
    return list(counts)


def _finish(manifest: Manifest) -> str:
    """Return the SQL that makes the restored rows fit for use and refuses an incomplete copy."""
    collections = _table(manifest.schema, "collections")
    version = int(time.time() * 1000)
    lines = []
    for name, rows in manifest.tables.items():
        table = _table(manifest.schema, name)
        lines.append(
            f"DO $$ DECLARE n bigint; BEGIN SELECT count(*) INTO n FROM {table}; IF n <> {rows} "  # noqa: S608
            f"THEN RAISE EXCEPTION '% rows of {rows} came back', n; END IF; END $$;"
        )
    return "\n".join(
        [
            *lines,
            f"UPDATE {collections} SET version = greatest(version, {version}) + 1;",  # noqa: S608
            # An index older than what is forgotten is built anew.
            f"UPDATE {collections} SET forgotten = version;",  # noqa: S608
            # Who was at work on these is gone, and its number may be given to another.
            f"UPDATE {_table(manifest.schema, 'jobs')} SET state = 'queued', runner = NULL"  # noqa: S608
            " WHERE state = 'running';",
        ]
    )


def _table(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"
