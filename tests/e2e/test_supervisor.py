"""A real supervisor with real workers: crashes, hangs and reloads cost no connection."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.conftest import ServerProcess, ragserve, running

SUPERVISOR_BYTES = 25_000_000
QUESTION = {"query": "lunch", "mode": "lexical"}


async def prepare(server: ServerProcess) -> None:
    """Give the server something to find."""
    body = {"id": "a", "text": "Lunch is served at noon."}
    assert (await server.call("POST", "/v1/documents?wait=30", body))[0] == 200


async def workers(server: ServerProcess, count: int) -> list[int]:
    """Return the process ids of the first ``count`` workers that became ready."""
    await server.event("worker_ready", count=count)
    return [event["pid"] for event in server.events if event["event"] == "worker_ready"]


async def ask(url: str) -> int:
    """Ask over a connection of its own; return the status."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"{url}/v1/search", json=QUESTION) as response,
    ):
        await response.read()
        return response.status


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


async def test_a_dead_workers_queue_is_answered_by_its_replacement(data_dir: Path) -> None:
    """Connections that wait at a hung worker survive its kill -9: none is refused or reset."""
    async with running(data_dir, "--workers", "2") as server:
        await prepare(server)
        first, _ = await workers(server, 2)
        os.kill(first, signal.SIGSTOP)
        asked = [asyncio.create_task(ask(server.url)) for _ in range(200)]
        done, waiting = await asyncio.wait(asked, timeout=1.0)
        assert done, "the other worker answers"
        assert waiting, "the kernel gave the hung worker its share"
        os.kill(first, signal.SIGKILL)
        assert await asyncio.gather(*asked) == [200] * 200
        died = await server.event("child_died")
        assert (died["pid"], died["code"]) == (first, -signal.SIGKILL)


async def test_the_supervisor_is_small(data_dir: Path, dsn: str) -> None:
    """It has under 25 MB resident; what an embedded PostgreSQL needs to be started comes on top."""
    async with running(data_dir, "--workers", "1", DATABASE_URL=dsn) as server:
        pages = Path(f"/proc/{server.process.pid}/statm").read_text(encoding="ascii").split()[1]
        assert int(pages) * os.sysconf("SC_PAGE_SIZE") < SUPERVISOR_BYTES


async def test_a_hung_worker_is_replaced(data_dir: Path) -> None:
    """A worker whose event loop stops is killed and replaced within seconds."""
    async with running(data_dir, "--workers", "1") as server:
        await prepare(server)
        (hung,) = await workers(server, 1)
        os.kill(hung, signal.SIGSTOP)
        killed = await server.event("child_killed")
        assert killed["pid"] == hung
        await workers(server, 2)
        assert await ask(server.url) == 200


@pytest.mark.nightly
async def test_a_hung_worker_is_replaced_within_seconds(data_dir: Path) -> None:
    """Of two workers one is stopped: within 6 s it is gone, and all who asked have an answer."""
    async with running(data_dir, "--workers", "2") as server:
        await prepare(server)
        hung, _ = await workers(server, 2)
        loop = asyncio.get_running_loop()
        stopped_at = loop.time()
        os.kill(hung, signal.SIGSTOP)
        asked = [asyncio.create_task(ask(server.url)) for _ in range(200)]
        await server.event("child_killed")
        await workers(server, 3)
        assert loop.time() - stopped_at < 6.0
        assert await asyncio.gather(*asked) == [200] * 200


@pytest.mark.parametrize("rounds", [1, pytest.param(100, marks=pytest.mark.nightly)])
async def test_a_reload_under_load_loses_nothing(data_dir: Path, rounds: int) -> None:
    """SIGHUP replaces all workers while 100 keep-alive clients go on: every request is answered."""
    async with running(data_dir, "--workers", "2") as server:
        await prepare(server)
        old = await workers(server, 2)
        stop = asyncio.Event()
        statuses: list[int] = []

        async def client() -> None:
            async with aiohttp.ClientSession() as session:
                while not stop.is_set():
                    url = f"{server.url}/v1/search"
                    # POST is not retried by the client: what is lost shows.
                    async with session.post(url, json=QUESTION) as response:
                        await response.read()
                        statuses.append(response.status)

        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(client())
            for number in range(rounds):
                server.process.send_signal(signal.SIGHUP)
                await server.event("child_stopped", count=3 * (number + 1))
                await server.event("ingest_ready", count=2 + number)
            stop.set()
        new = (await workers(server, 2 + 2 * rounds))[2:]
        stopped = [event for event in server.events if event["event"] == "child_stopped"]
        assert [event["code"] for event in stopped] == 3 * rounds * [0]
        assert set(old) < {event["pid"] for event in stopped}
        assert len(set(old) | set(new)) == 2 + 2 * rounds
        assert set(statuses) == {200}
        assert len(statuses) > 200


async def test_a_reload_with_a_wrong_configuration_changes_nothing(
    data_dir: Path, tmp_path: Path
) -> None:
    """A file that cannot be used is named in the log, and the server goes on as it was."""
    file = tmp_path / "ragserve.toml"
    file.write_text("[search]\ntop_k = 3\n", encoding="utf-8")
    async with running(data_dir, "--workers", "1", "--config", str(file)) as server:
        (pid,) = await workers(server, 1)
        file.write_text("[search]\ntopk = 3\n", encoding="utf-8")
        server.process.send_signal(signal.SIGHUP)
        refused = await server.event("reload_refused")
        assert refused["error"] == (
            f"unknown setting search.topk ({file}); did you mean search.top_k?"
        )
        os.kill(pid, 0)
        assert (await server.call("GET", "/ready"))[0] == 200


async def test_requests_under_way_finish_on_sigterm(data_dir: Path) -> None:
    """A request that was accepted before SIGTERM is answered, and its connection closed."""
    async with running(data_dir, "--workers", "1") as server:
        await prepare(server)
        documents = [{"id": f"d{n}", "text": f"words {n}"} for n in range(300)]
        body = {"documents": documents}
        url = f"{server.url}/v1/documents?wait=20"
        upload = asyncio.create_task(server.session.post(url, json=body))
        while not (await server.call("GET", "/v1/collections/default"))[1]["pending"]:
            pass
        server.process.send_signal(signal.SIGTERM)
        response = await upload
        assert response.status in (200, 202)
        assert response.headers["Connection"] == "close"
        assert await server.stop() == 0


def test_a_crash_loop_ends_with_its_own_code(data_dir: Path) -> None:
    """When restarting does not help, the server ends with code 70 and says why."""
    done = ragserve(data_dir, "serve", "--port", "0", DATABASE_URL="postgresql://127.0.0.1:1/none")
    assert done.returncode == 70
    assert "database: cannot connect" in done.stderr
    (end,) = [line for line in done.stderr.splitlines() if "supervisor_gives_up" in line]
    assert "database: cannot connect" in json.loads(end)["error"]


async def test_one_worker_more_and_one_less(data_dir: Path) -> None:
    """SIGTTIN adds a worker, SIGTTOU drains one, and the last one stays."""
    async with running(data_dir, "--workers", "1") as server:
        await prepare(server)
        server.process.send_signal(signal.SIGTTIN)
        _, added = await workers(server, 2)
        assert await ask(server.url) == 200
        server.process.send_signal(signal.SIGTTOU)
        stopped = await server.event("child_stopped")
        assert (stopped["pid"], stopped["code"]) == (added, 0)
        server.process.send_signal(signal.SIGTTOU)
        assert [await ask(server.url) for _ in range(20)] == [200] * 20
    assert [event["workers"] for event in server.events if event["event"] == "worker_removed"] == [
        1
    ]


async def test_workers_outlive_their_supervisor(data_dir: Path) -> None:
    """After kill -9 of the supervisor serving goes on; the next one takes over without a loss."""
    statuses: list[int] = []
    stop = asyncio.Event()

    async def client(url: str) -> None:
        while not stop.is_set():
            statuses.append(await ask(url))

    async with running(data_dir, "--workers", "2") as server:
        await prepare(server)
        old = await workers(server, 2)
        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(client(server.url))
            server.process.kill()
            # process.wait() would wait for the end of its children's stderr.
            await until(lambda: server.process.returncode is not None)
            alone = len(statuses)
            await until(lambda: len(statuses) >= alone + 100)
            port = server.url.rpartition(":")[2]
            async with running(data_dir, "--workers", "2", "--port", port) as successor:
                await successor.event("orphan_ended", count=3)
                await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in old))
                assert await ask(server.url) == 200
                stop.set()
    assert set(statuses) == {200}


@pytest.mark.parametrize(
    ("rounds", "connections"), [(2, 300), pytest.param(300, 200, marks=pytest.mark.nightly)]
)
async def test_a_dead_worker_refuses_nobody(data_dir: Path, rounds: int, connections: int) -> None:
    """Connections made while a worker is dead are all answered: none is refused or reset."""
    async with running(data_dir, "--workers", "2") as server:
        await prepare(server)
        await workers(server, 2)
        for number in range(rounds):
            ready = [event["pid"] for event in server.events if event["event"] == "worker_ready"]
            os.kill(ready[-1], signal.SIGKILL)
            for _ in range(0, connections, 50):
                asked = await asyncio.gather(*(ask(server.url) for _ in range(50)))
                assert asked == [200] * 50
            await workers(server, 3 + number)
