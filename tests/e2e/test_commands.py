"""The command line, as a person uses it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from ragserve import __version__
from ragserve.store.embedded import database_dsn
from tests.conftest import DOCUMENTS
from tests.e2e.conftest import environment, ragserve, running


def test_a_folder_answers_questions(data_dir: Path, tmp_path: Path) -> None:
    """A folder is ingested, broken files are named, a question is answered with its source."""
    folder = tmp_path / "documents"
    shutil.copytree(DOCUMENTS, folder)
    done = ragserve(data_dir, "ingest", str(folder))
    assert done.returncode == 0, done.stderr
    good = sum(1 for file in (folder / "handbook").iterdir())
    broken = sorted(file.name for file in (folder / "broken").iterdir())
    assert done.stdout.startswith(f"{good} documents ingested, 0 unchanged, {len(broken)} failed")
    for name in broken:
        assert done.stderr.count(str(folder / "broken" / name)) == 1
    again = ragserve(data_dir, "ingest", str(folder / "handbook"))
    assert again.stdout.startswith(f"0 documents ingested, {good} unchanged, 0 failed")
    asked = ragserve(data_dir, "query", "annual leave days", "--json")
    answer = json.loads(asked.stdout)
    assert "leave.md" in {
        citation["document_id"].rpartition("/")[2] for citation in answer["citations"]
    }
    shown = ragserve(data_dir, "query", "annual leave days")
    for citation in answer["citations"]:
        assert f"[{citation['index']}]" in answer["answer"]
        assert f"\n[{citation['index']}] {citation['title']}" in shown.stdout


async def test_a_running_server_takes_files_and_questions(data_dir: Path, tmp_path: Path) -> None:
    """With --url the same commands go to a server; documents have the same ids."""
    for name in ("leave.md", "network.html"):
        shutil.copy(DOCUMENTS / "handbook" / name, tmp_path)
    (tmp_path / 'Über "uns", 50 %25.txt').write_text("We are a ferry company.", "utf-8")
    async with running(data_dir) as server:
        command = [sys.executable, "-m", "ragserve"]
        env = environment(data_dir / "unused")
        ingest = [*command, "ingest", str(tmp_path), "--url", server.url]
        done = subprocess.run(ingest, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        _, listed = await server.call("GET", "/v1/documents")
        ids = {document["id"] for document in listed["documents"]}
        assert ids == {str(path) for path in tmp_path.iterdir()}
        query = [*command, "query", "annual leave days", "--url", server.url]
        asked = subprocess.run(query, env=env, capture_output=True, text=True, check=False)
        assert "leave.md" in asked.stdout
        refused = [*ingest, "-c", "no/name"]
        done = subprocess.run(refused, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("ragserve: collection: 'no/name'")
        query = [*command, "query", "x", "-c", "none", "--url", server.url]
        asked = subprocess.run(query, env=env, capture_output=True, text=True, check=False)
        assert (asked.returncode, asked.stderr) == (
            1,
            "ragserve: collection 'none' does not exist\n",
        )


def test_nothing_to_take_in(tmp_path: Path) -> None:
    """It is said at once, without a database."""
    (tmp_path / "program").write_bytes(b"\x7fELF")
    done = ragserve(tmp_path / "data", "ingest", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        "nothing to take in: no file of a known kind was found\n"
        "ignored 1 files of other kinds: 1 without suffix\n"
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", [("query", "x"), ("ingest", str(DOCUMENTS))])
def test_a_server_that_does_not_run(command: tuple[str, ...], tmp_path: Path) -> None:
    """Who asks where nobody listens hears which command is missing there."""
    done = ragserve(tmp_path, *command, "--url", "http://127.0.0.1:1")
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1] == (
        "ragserve: cannot connect to http://127.0.0.1:1: Connection refused;"
        " does `ragserve serve` run there?"
    )


def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    """A wrong place is named with what to do, by a code of its own."""
    place = tmp_path / "file" / "data"
    (tmp_path / "file").touch()
    done = ragserve(place, "query", "x")
    assert (done.returncode, done.stderr) == (
        78,
        f"ragserve: {place}: Not a directory: choose another --data-dir\n",
    )


STORED_BEFORE = 5
"""Documents that are stored before ``HOLD`` lets an ingest wait."""
HOLD = f"""
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.version > {STORED_BEFORE} THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER hold BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION hold()
"""
"""Makes storing wait for whoever holds that lock, so that no ingest ends before it is told to."""


def heed_interrupts() -> None:
    """Undo what a shell does to commands in the background: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_an_interrupted_ingest_goes_on(data_dir: Path, tmp_path: Path) -> None:
    """After Ctrl-C the same command takes in the rest, every document once."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"file number {number} about zebras", "utf-8")
    assert ragserve(data_dir, "migrate").returncode == 0
    with database_dsn("", data_dir) as dsn:
        connection = await asyncpg.connect(dsn)
        await connection.execute(HOLD)
        await connection.execute("SELECT pg_advisory_lock(1)")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ragserve", "ingest", str(folder)),
            env=environment(data_dir, RAGSERVE_INGEST__DOCUMENTS="2", RAGSERVE_LOG__LEVEL="debug"),
            stderr=subprocess.PIPE,
            preexec_fn=heed_interrupts,
        )
        assert process.stderr is not None
        async with asyncio.timeout(60):
            for _ in range(STORED_BEFORE):
                while b"document_stored" not in await process.stderr.readline():
                    pass
            process.send_signal(signal.SIGINT)
            await connection.close()  # what is under way may end
            rest = (await process.stderr.read()).decode()
            assert await process.wait() == 130
    assert "the same command goes on from there" in rest
    done = await asyncio.to_thread(ragserve, data_dir, "ingest", str(folder))
    assert done.returncode == 0, done.stderr
    stored, unchanged = (int(done.stdout.split()[place]) for place in (0, 3))
    assert stored + unchanged == 40
    assert STORED_BEFORE <= unchanged < 40
    assert ", 0 failed" in done.stdout


def checked(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    """Return what `check --json` found, by name."""
    return {finding["name"]: finding for finding in json.loads(done.stdout)}


def test_check_reaches_everything(data_dir: Path) -> None:
    """check says how each dependency is, and what mends it; it fails if one does."""
    done = ragserve(data_dir, "check")
    assert done.returncode == 0, done.stdout
    assert "\npass  database        embedded PostgreSQL 18" in done.stdout
    assert "\npass  embedder        hashing-384, 384 dimensions\n" in done.stdout
    assert "\npass  keys  " not in done.stdout, "an empty database has no tables yet"
    assert ragserve(data_dir, "migrate").returncode == 0
    found = checked(ragserve(data_dir, "check", "--json"))
    assert found["migrations"]["verdict"] == "pass"
    assert str(found["keys"]["detail"]).startswith("none: clients on this machine")

    dead = ragserve(
        data_dir,
        "check",
        "--json",
        DATABASE_URL="postgresql://127.0.0.1:1/none",
        RAGSERVE_LLM__BASE_URL="http://127.0.0.1:1/v1",
        REDIS_URL="redis://127.0.0.1:1",
    )
    assert dead.returncode == 75
    found = checked(dead)
    verdicts = {name: found[name]["verdict"] for name in ("database", "language model", "redis")}
    assert verdicts == {"database": "fail", "language model": "fail", "redis": "warn"}
    assert str(found["database"]["detail"]).startswith("cannot connect")
    assert all(found[name]["remedy"] for name in verdicts)


def test_migrate_says_what_it_did(data_dir: Path) -> None:
    """migrate applies each migration once."""
    assert ragserve(data_dir, "migrate").stdout == (
        "applied 0001 initial\napplied 0002 keys\napplied 0003 key_limits\n"
    )
    assert ragserve(data_dir, "migrate").stdout == "the database is up to date\n"


def test_version(data_dir: Path) -> None:
    """version prints the version."""
    assert ragserve(data_dir, "version").stdout == f"{__version__}\n"
    assert ragserve(data_dir, "--version").stdout == f"{__version__}\n"


async def test_keys_are_made_and_revoked_beside_a_running_server(data_dir: Path) -> None:
    """`keys create`, `list`, `rotate`, `revoke`; both workers know within moments."""
    async with running(data_dir, "--workers", "2") as server:

        async def status(token: str | None) -> set[int]:
            """Ask over many connections: each worker gets some."""
            found = set()
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            for _ in range(16):
                connector = aiohttp.TCPConnector(force_close=True)
                async with (
                    aiohttp.ClientSession(connector=connector, headers=headers) as session,
                    session.get(f"{server.url}/v1/models") as response,
                ):
                    found.add(response.status)
            return found

        async def until(token: str | None, expected: int) -> None:
            async with asyncio.timeout(20):
                # Who tries a wrong key too often gets a 429 for it.
                while (found := await status(token)) and found - {429} not in ({expected}, set()):
                    pass

        assert await status(None) == {200}
        made = await asyncio.to_thread(ragserve, data_dir, "keys", "create", "ci", "--scope=query")
        token = made.stdout.strip()
        await until(None, 401)
        await until(token, 200)
        rotated = await asyncio.to_thread(
            ragserve, data_dir, "keys", "rotate", token.split("_")[1], "--grace", "0"
        )
        await until(token, 401)
        await until(rotated.stdout.strip(), 200)
        asked = await asyncio.to_thread(
            ragserve,
            data_dir,
            "query",
            "lunch",
            "--url",
            server.url,
            RAGSERVE_KEY=rotated.stdout.strip(),
        )
        assert "does not exist" in asked.stderr
        listed = await asyncio.to_thread(ragserve, data_dir, "keys", "list")
        assert [("expired" in line, "ci" in line) for line in listed.stdout.splitlines()] == [
            (True, True),
            (False, True),
        ]
        key_id = rotated.stdout.split("_")[1]
        await asyncio.to_thread(ragserve, data_dir, "keys", "revoke", key_id)
        await until(rotated.stdout.strip(), 401)
