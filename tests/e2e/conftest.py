"""A real server: `ragserve serve` as a process, reached over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

START_S = 60.0
STOP_S = 30.0

QUICK = {
    "RAGSERVE_EMBEDDING__PROVIDER": "hashing",
    "RAGSERVE_ANSWER__MIN_SIMILARITY": "0.1",
    "RAGSERVE_LOG__FORMAT": "json",
}


class ServerProcess:
    """`ragserve serve` and its log."""

    def __init__(self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.session = session
        self.url = ""
        self.events: list[dict[str, Any]] = []
        self._arrived = asyncio.Condition()
        self._reading = asyncio.create_task(self._read_log())

    async def _read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._arrived:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.events.append({"event": line.decode().rstrip()})
                self._arrived.notify_all()
        async with self._arrived:
            self.events.append({"event": "log_ended"})
            self._arrived.notify_all()

    async def event(
        self, name: str, match: Callable[[dict[str, Any]], bool] = lambda _: True, count: int = 1
    ) -> dict[str, Any]:
        """Wait until the log has ``count`` events of that name; return the last of them."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["event"] == name and match(event)]

        async with asyncio.timeout(START_S), self._arrived:
            await self._arrived.wait_for(
                lambda: len(found()) >= count or self.events[-1:] == [{"event": "log_ended"}]
            )
        assert len(found()) >= count, self.events[-20:]
        return found()[count - 1]

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(STOP_S):
            code = await self.process.wait()
            await self._reading
        return code

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Return status and JSON body of an answer."""
        options = {} if body is None else {"json": body}
        async with self.session.request(method, self.url + path, **options) as response:
            return response.status, await response.json()


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Return the environment of a quick, quiet server in ``data_dir``."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("RAGSERVE_")}
    return {**inherited, **QUICK, "RAGSERVE_STORAGE__DATA_DIR": str(data_dir), **more}


@asynccontextmanager
async def running(data_dir: Path, *arguments: str, **more: str) -> AsyncIterator[ServerProcess]:
    """Run a server on a port of the kernel's choice until the context ends."""
    command = [sys.executable, "-m", "ragserve", "serve", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(data_dir, **more), stderr=subprocess.PIPE, limit=2**20
    )
    async with aiohttp.ClientSession() as session:
        server = ServerProcess(process, session)
        try:
            server.url = (await server.event("worker_ready"))["address"]
            await server.event("ingest_ready")
            yield server
        finally:
            await server.stop()


def ragserve(data_dir: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ragserve", *arguments],
        env=environment(data_dir, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
