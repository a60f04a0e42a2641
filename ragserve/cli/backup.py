"""``backup``: everything that PostgreSQL holds, as of one moment, while the server runs.

The search index is not in it: it is derived, and built again after a restore.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import asyncpg
import click
import msgspec

from ragserve import __version__
from ragserve.cli.archive import (
    CONFIGURATION,
    DATABASE,
    FORMAT,
    MANIFEST,
    Manifest,
    listed,
    new_archive,
)
from ragserve.cli.transfer import Transfer
from ragserve.cli.waiting import database_here, telling
from ragserve.config import Config, redacted, render
from ragserve.errors import RagserveError, Unavailable
from ragserve.store.dial import UNREACHABLE, dial
from ragserve.store.dump import Programs, pieces, quoted

HEAD = "# The settings at the time of the backup; *** stands for a secret.\n"
TABLES = (
    "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
    " ORDER BY 1"
)
"""The current schema's tables that are no extension's; partitions count as their parent."""


def run(config: Config, data_dir: Path, file: Path) -> int:
    """Write a backup to ``file``, which must not exist."""
    with database_here(config, data_dir) as dsn, telling("reading the database"):
        manifest = asyncio.run(_back_up(config, dsn, file))
    held = {name: manifest.tables.get(name, 0) for name in ("collections", "documents", "chunks")}
    click.echo(f"{file}: {listed(held)}, {file.stat().st_size / 1e6:.1f} MB")
    return 0


async def _back_up(config: Config, dsn: str, file: Path) -> Manifest:
    connection = await connect(config, dsn)
    try:
        # pg_dump sees what this transaction sees, so that the manifest's counts are the dump's.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            manifest = await _manifest(connection)
            snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
            await asyncio.to_thread(_write, config, dsn, file, manifest, snapshot)
    finally:
        await connection.close(timeout=1.0)
    return manifest


async def connect(config: Config, dsn: str) -> asyncpg.Connection:
    """Return a connection without a limit on its statements: counting may take its time."""
    try:
        timeout_s = config.database.connect_timeout_s
        return await dial(dsn, timeout=timeout_s)
    except UNREACHABLE as error:
        reason = str(error) or type(error).__name__
        raise Unavailable(f"database: cannot connect: {reason}") from error


async def _manifest(connection: asyncpg.Connection) -> Manifest:
    if not await connection.fetchval("SELECT to_regclass('migrations') IS NOT NULL"):
        raise RagserveError("the database holds nothing of ragserve: there is nothing to back up")
    return Manifest(
        format=FORMAT,
        ragserve=__version__,
        created_at=dt.datetime.now(dt.UTC),
        postgres=int(await connection.fetchval("SHOW server_version_num")),
        pgvector=await connection.fetchval(
            "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        ),
        schema=await connection.fetchval("SELECT current_schema()"),
        migration=await connection.fetchval("SELECT max(number) FROM migrations"),
        tables=await count_rows(connection),
    )


async def count_rows(connection: asyncpg.Connection) -> dict[str, int]:
    """Return the number of rows of every table of the current schema."""
    return {
        row["relname"]: await connection.fetchval(
            f"SELECT count(*) FROM {quoted(row['relname'])}"  # noqa: S608 - quoted
        )
        for row in await connection.fetch(TABLES)
    }


def _write(config: Config, dsn: str, file: Path, manifest: Manifest, snapshot: str) -> None:
    programs = Programs(manifest.postgres // 10_000, dsn)
    with new_archive(file) as archive, Transfer("backing up") as transfer:
        archive.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        archive.writestr(CONFIGURATION, render(redacted(config), HEAD))
        with (
            programs.dumping(manifest.schema, snapshot) as dump,
            archive.open(DATABASE, "w", force_zip64=True) as member,
        ):
            for piece in pieces(dump, transfer.note):
                member.write(piece)
