"""Backup, destroy, restore: the same answers, and nothing that was not asked for."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from ragserve.cli.archive import DATABASE, MANIFEST
from tests.conftest import DOCUMENTS, own_directory
from tests.e2e.conftest import ragserve, running
from tests.postgres_pair import Node, postgres_pair

PASSWORD = "pass word%/@"
QUESTIONS = ("annual leave days", "Who signs for hotel costs?", "lifejackets on board", "refunds")


async def answers(data_dir: Path, **environ: str) -> list[Any]:
    """Return what a server of ``data_dir`` answers and finds."""
    found: list[Any] = []
    async with running(data_dir, "--workers", "1", **environ) as server:
        # Once it is searchable, so is everything that was stored before it.
        probe = {"documents": [{"id": "probe", "text": "Something to wait for."}]}
        status, answer = await server.call("POST", "/v1/documents?wait=60", probe)
        assert (status, answer["documents"][0]["state"]) == (200, "ready"), answer
        for question in QUESTIONS:
            status, body = await server.call("POST", "/v1/query", {"query": question})
            assert status == 200, body
            cited = [(citation["index"], citation["chunk_id"]) for citation in body["citations"]]
            found.append((body["answer"], cited))
            # Exact; a lexical score depends a little on how the index's segments were merged.
            dense = {"query": question, "mode": "dense"}
            status, body = await server.call("POST", "/v1/search", dense)
            assert status == 200, body
            found.append(body["results"])
    return found


async def test_a_restored_server_gives_the_same_answers(tmp_path: Path) -> None:
    """What was backed up answers as before: on the same host after its end, and on another one.

    What came after the backup is gone again, from the search index, too.
    """
    file = tmp_path / "monday.zip"
    with own_directory() as first, own_directory() as second:
        assert ragserve(first, "ingest", str(DOCUMENTS / "handbook")).returncode == 0
        done = ragserve(first, "backup", str(file), RAGSERVE_LLM__API_KEY="sk-canary")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{file}: 1 collection, ")
        assert file.stat().st_mode & 0o777 == 0o600
        assert b"sk-canary" not in file.read_bytes()
        before = await answers(first)

        (first / "later.txt").write_text("Hotel costs are signed by the captain.", "utf-8")
        assert ragserve(first, "ingest", str(first / "later.txt")).returncode == 0
        refused = ragserve(first, "restore", str(file))
        assert refused.returncode == 1
        assert "the database holds " in refused.stderr
        assert "--force replaces all of it" in refused.stderr
        forced = ragserve(first, "restore", str(file), "--force")
        assert forced.returncode == 0, forced.stderr
        assert await answers(first) == before

        moved = ragserve(second, "restore", str(file))
        assert moved.returncode == 0, moved.stderr
        assert await answers(second) == before


async def test_a_database_of_ones_own(postgres: str, tmp_path: Path) -> None:
    """A primary behind a list of hosts, with a password: backed up, destroyed, restored.

    A standby comes first in the list; it can give no snapshot and take no restore.
    """
    assert postgres
    file = tmp_path / "own.zip"
    with own_directory() as data_dir, own_directory() as directory:
        directory.chmod(0o755)
        with postgres_pair(directory) as (primary, standby):
            for sql in (
                "SET password_encryption = 'scram-sha-256'",
                f"CREATE ROLE owner LOGIN SUPERUSER PASSWORD '{PASSWORD}'",
                "CREATE DATABASE own OWNER owner",
            ):
                await execute(primary.dsn(), sql)
            ask_for_passwords(primary)
            hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
            url = {"DATABASE_URL": f"postgresql://owner:{quote(PASSWORD, safe='')}@{hosts}/own"}
            assert ragserve(data_dir, "ingest", str(DOCUMENTS / "handbook"), **url).returncode == 0
            done = ragserve(data_dir, "backup", str(file), **url)
            assert done.returncode == 0, done.stderr
            assert PASSWORD.encode() not in file.read_bytes()
            before = await answers(data_dir, **url)
            shutil.rmtree(data_dir / "index")
            await execute(primary.dsn(), "DROP DATABASE own WITH (FORCE)")
            await execute(primary.dsn(), "CREATE DATABASE own OWNER owner")
            restored = ragserve(data_dir, "restore", str(file), **url)
            assert restored.returncode == 0, restored.stderr
            assert await answers(data_dir, **url) == before


async def execute(dsn: str, sql: str) -> None:
    """Run a statement in a session of its own, for good: there is no pool here."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def ask_for_passwords(primary: Node) -> None:
    """Let nobody but the superuser of the tests in without one."""
    rules = (
        "host all postgres 127.0.0.1/32 trust\n"
        "host replication postgres 127.0.0.1/32 trust\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
    )
    (primary.data / "pg_hba.conf").write_text(rules, encoding="utf-8")
    primary.run("pg_ctl", "reload", "-D", str(primary.data))


async def test_a_server_is_backed_up_while_it_runs_but_not_restored(tmp_path: Path) -> None:
    """A backup needs no pause; a restore under a running server is refused."""
    file = tmp_path / "running.zip"
    with own_directory() as data_dir:
        async with running(data_dir, "--workers", "1") as server:
            body = {"documents": [{"id": "menu", "text": "On Friday there is fish."}]}
            status, answer = await server.call("POST", "/v1/documents?wait=30", body)
            assert status == 200, answer
            done = ragserve(data_dir, "backup", str(file))
            assert done.returncode == 0, done.stderr
            refused = ragserve(data_dir, "restore", str(file), "--force")
            assert refused.returncode == 1
            assert refused.stderr == f"ragserve: a server uses {data_dir}: stop it first\n"
        again = ragserve(data_dir, "backup", str(file))
        assert again.stderr == f"ragserve: {file} exists; choose another name\n"
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(MANIFEST))
        assert manifest["tables"]["documents"] == 1


def test_a_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    """A restore that fails says why and leaves the database as it was."""
    file = tmp_path / "good.zip"
    with own_directory() as data_dir:
        (data_dir / "menu.txt").write_text("On Friday there is fish.", "utf-8")
        assert ragserve(data_dir, "ingest", str(data_dir / "menu.txt")).returncode == 0
        assert ragserve(data_dir, "backup", str(file)).returncode == 0
        for harm in ("cut", "flipped", "short", "newer", "other"):
            bad, reason = harmed(file, harm)
            refused = ragserve(data_dir, "restore", str(bad), "--force")
            assert refused.returncode == 1
            assert reason in refused.stderr
        asked = ragserve(data_dir, "query", "Friday fish")
        assert "On Friday there is fish." in asked.stdout


def harmed(file: Path, harm: str) -> tuple[Path, str]:
    """Return a spoilt copy of a backup and what must be said about it."""
    bad = file.with_name("bad.zip")
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if harm == "other":
        bad.write_bytes(b"not a zip")
        return bad, "is no backup, or damaged"
    if harm == "cut":
        bad.write_bytes(content[: len(content) // 2])
        return bad, "is no backup, or damaged"
    if harm == "flipped":
        middle = content.index(members[DATABASE]) + len(members[DATABASE]) // 2
        bad.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        return bad, "Bad CRC-32 for file 'database.dump'"
    manifest = json.loads(members[MANIFEST])
    if harm == "short":
        manifest["tables"]["documents"] += 1
        reason = "1 rows of 2 came back"
    else:
        manifest["migration"] = 9999
        reason = "has migration 9999, this ragserve knows"
    members[MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(bad, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return bad, reason
