"""The whole server as a process: starts with nothing, loses nothing, stops cleanly."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from pathlib import Path

from tests.e2e.conftest import ragserve, running


async def test_a_server_starts_from_nothing_and_keeps_its_documents(data_dir: Path) -> None:
    """One command serves, a second is refused; documents survive a restart; SIGTERM ends with 0."""
    async with running(data_dir) as server:
        body = {"id": "a", "text": "Lunch is served at noon in the red hall."}
        assert (await server.call("POST", "/v1/documents?wait=30", body))[0] == 200
        assert await server.stop() == 0
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    async with running(data_dir) as server:
        _, answer = await server.call("POST", "/v1/query", {"query": "When is lunch served?"})
        assert answer["citations"][0]["document_id"] == "a"
        second = await asyncio.to_thread(ragserve, data_dir, "serve", "--port", "0")
        assert (second.returncode, second.stderr) == (
            75,
            f"ragserve: a server works in {data_dir / 'run'} already: stop it first"
            f" (kill {server.process.pid}), or choose another --data-dir\n",
        )


async def test_kill_9_of_the_ingest_process_loses_nothing(data_dir: Path) -> None:
    """Killed in the middle of 1,000 documents, it is restarted and every document is in once."""
    documents = [{"id": f"d{n}", "text": f"document number {n} about zebras"} for n in range(1000)]
    async with running(data_dir, RAGSERVE_INGEST__DOCUMENTS="4") as server:
        body = {"documents": documents}
        assert (await server.call("POST", "/v1/documents", body))[0] == 202
        killed_at = 0
        while killed_at == 0:
            _, state = await server.call("GET", "/v1/collections/default")
            killed_at = state["documents"]
        pid = (await server.event("ingest_ready"))["pid"]
        os.kill(pid, signal.SIGKILL)
        assert 0 < killed_at < 1000
        died = await server.event("child_died")
        assert (died["child"], died["code"]) == ("ingester", -signal.SIGKILL)
        again = {"id": "last", "text": "uploaded after the crash"}
        _, answer = await server.call("POST", "/v1/documents?wait=60", again)
        assert answer["documents"][0]["state"] == "ready"
        state = {"pending": 1}
        while state["pending"]:
            _, state = await server.call("GET", "/v1/collections/default")
        assert (state["documents"], state["chunks"], state["failed"]) == (1001, 1001, 0)
        ids: set[str] = set()
        for n in range(0, 1000, 50):
            body = {"query": f"number {n}", "mode": "lexical", "top_k": 1}
            _, found = await server.call("POST", "/v1/search", body)
            ids |= {result["document_id"] for result in found["results"]}
        assert ids == {f"d{n}" for n in range(0, 1000, 50)}


async def test_kill_9_of_the_embedded_database_loses_nothing(data_dir: Path) -> None:
    """It is started again by itself, and is searched and written to as before."""
    async with running(data_dir, "--workers", "1") as server:
        body = {"id": "a", "text": "Lunch is served at noon."}
        assert (await server.call("POST", "/v1/documents?wait=30", body))[0] == 200
        pid_file = data_dir / "postgres" / "postmaster.pid"
        os.kill(int(pid_file.read_text(encoding="ascii").split()[0]), signal.SIGKILL)
        await server.event("database_ready")
        question = {"query": "lunch", "mode": "dense"}
        async with asyncio.timeout(30):
            while (answer := await server.call("POST", "/v1/search", question))[0] != 200 or (
                "degraded" in answer[1]
            ):
                pass
        assert answer[1]["results"][0]["document_id"] == "a"
        body = {"id": "b", "text": "Dinner is served at seven."}
        assert (await server.call("POST", "/v1/documents?wait=30", body))[0] == 200
    assert not (data_dir / "postgres" / "postmaster.pid").exists()


async def test_a_deleted_index_is_rebuilt(data_dir: Path) -> None:
    """The BM25 index is derived: damaged or gone, it comes back by itself."""
    async with running(data_dir) as server:
        body = {"id": "a", "text": "Lunch is served at noon."}
        await server.call("POST", "/v1/documents?wait=30", body)
    (meta,) = (data_dir / "index").glob("*/meta.json")
    meta.write_text("damaged")
    async with running(data_dir) as server:
        body = {"id": "b", "text": "Dinner is served at seven."}
        await server.call("POST", "/v1/documents?wait=30", body)
        _, found = await server.call("POST", "/v1/search", {"query": "served", "mode": "lexical"})
        assert {result["document_id"] for result in found["results"]} == {"a", "b"}


async def test_another_database_has_an_index_of_its_own(data_dir: Path, dsn: str) -> None:
    """On one data directory nothing of the database before is found, there and back."""
    places = {"own": {}, "other": {"DATABASE_URL": dsn}}
    for place, settings in [*places.items(), *places.items()]:
        async with running(data_dir, "--workers", "1", **settings) as server:
            for name in ("a", "b") if place == "own" else ("c",):
                body = {"id": f"{place}-{name}", "text": f"Lunch is served in the hall of {place}."}
                assert (await server.call("POST", "/v1/documents?wait=30", body))[0] == 200
            expected = {"own-a", "own-b"} if place == "own" else {"other-c"}
            ids: set[str] = set()
            async with asyncio.timeout(30):
                while ids != expected:  # the index is being made anew
                    question = {"query": "lunch", "mode": "lexical"}
                    _, answer = await server.call("POST", "/v1/search", question)
                    ids = {result["document_id"] for result in answer.get("results", ())}
                    assert ids <= expected


def test_wrong_configuration_ends_with_its_own_code(data_dir: Path) -> None:
    """A misspelt setting stops every command with code 78 and the name that was meant."""
    done = ragserve(data_dir, "check", RAGSERVE_LLM__BASE_URI="http://127.0.0.1")
    assert done.returncode == 78
    assert done.stderr == (
        "ragserve: unknown setting llm.base_uri (RAGSERVE_LLM__BASE_URI); "
        "did you mean llm.base_url?\n"
    )


async def test_workers_may_open_what_the_host_lets_them(data_dir: Path, dsn: str) -> None:
    """A shell's soft limit of open files does not bind `serve`; `check` says what does."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, most = before
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, most))
    try:
        said = ragserve(data_dir, "check", "--json", DATABASE_URL=dsn).stdout
        async with running(data_dir, "--workers", "1", DATABASE_URL=dsn) as server:
            worker = (await server.event("worker_ready"))["pid"]
            assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    found = next(finding for finding in json.loads(said) if finding["name"] == "open files")
    assert found["detail"].startswith(f"limit {most} that serve would take (no worker runs); ")


def test_a_port_in_use_is_named(data_dir: Path) -> None:
    """A host that is not this machine's ends at once and says which address."""
    done = ragserve(data_dir, "serve", "--host", "192.0.2.1", "--port", "8099")
    assert done.returncode == 78
    assert "cannot listen on 192.0.2.1 port 8099" in done.stderr
