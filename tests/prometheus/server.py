"""A real Prometheus with the project's own files, which are asked to look at one server only."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp.test_utils import unused_port

from tests.prometheus.files import PROMETHEUS

PROGRAM = shutil.which("prometheus")
INTERVAL_S = 1
"""Instead of the file's 15 s."""
PATIENCE_S = 30.0
POLL_S = 0.1


class Prometheus:
    """A running Prometheus, by the HTTP API that Grafana uses."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **parameters: str) -> Any:
        """Return ``data`` of an answer; what is wrong with a query is an assertion's message."""
        async with self._session.get(f"/api/v1/{path}", params=parameters) as response:
            body = await response.json()
        assert body["status"] == "success", f"{parameters}: {body['error']}"
        assert not body.get("warnings"), f"{parameters}: {body['warnings']}"
        return body["data"]

    async def values(self, query: str) -> list[float]:
        """Return what an expression is now, for each of its series."""
        data = await self.get("query", query=query)
        assert data["resultType"] == "vector", query
        return [float(series["value"][1]) for series in data["result"]]

    async def shown(self, query: str) -> None:
        """Wait until an expression has a value."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await self.values(query):
                    return
                await asyncio.sleep(POLL_S)

    async def scraped(self, times: int) -> None:
        """Wait until the server has been scraped ``times`` more."""
        before = await self._scrapes()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await self._scrapes() >= before + times:
                    return
                await asyncio.sleep(POLL_S)

    async def evaluated(self) -> list[dict[str, Any]]:
        """Return all rules once each of their groups has been evaluated after this call."""
        began = {name: at for name, at, _ in await self._groups()}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                groups = await self._groups()
                if all(at != began[name] for name, at, _ in groups):
                    return [rule for _, _, rules in groups for rule in rules]
                await asyncio.sleep(POLL_S)

    async def _scrapes(self) -> float:
        return sum(await self.values('count_over_time(up{job="ragserve"}[1h])'))

    async def _groups(self) -> list[tuple[str, str, list[dict[str, Any]]]]:
        groups = (await self.get("rules"))["groups"]
        return [(group["name"], group["lastEvaluation"], group["rules"]) for group in groups]


def configuration(target: str) -> dict[str, Any]:
    """Return prometheus.yml for one server at ``target``, and nothing else to look at or tell."""
    config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
    del config["alerting"]
    config["global"] |= dict.fromkeys(config["global"], f"{INTERVAL_S}s")
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "ragserve"]
    job["static_configs"] = [{"targets": [target]}]
    config["scrape_configs"] = [job]
    return config


@asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Prometheus]:
    """Run Prometheus on the server at ``target``, HOST:PORT."""
    assert PROGRAM is not None
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration(target)), encoding="utf-8")
    address = f"127.0.0.1:{unused_port()}"
    with (directory / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            f"--config.file={file}",
            f"--storage.tsdb.path={directory / 'series'}",
            f"--web.listen-address={address}",
            stderr=log,
            stdout=log,
        )
    try:
        async with aiohttp.ClientSession(f"http://{address}") as session:
            async with asyncio.timeout(PATIENCE_S):
                while not await _ready(session):
                    assert process.returncode is None, Path(log.name).read_text(encoding="utf-8")
                    await asyncio.sleep(POLL_S)
            yield Prometheus(session)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _ready(session: aiohttp.ClientSession) -> bool:
    with suppress(aiohttp.ClientError):
        async with session.get("/-/ready") as response:
            return response.status == 200
    return False
