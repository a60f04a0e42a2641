"""The host of a soak: Redis, PostgreSQL, a model's server and ragserve, each started and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from bench.process import Started, command_of, free_port, started
from ragserve.store.embedded import EmbeddedPostgres
from tests.postgres_pair import Node, make_directory
from tests.redis_server import RedisServer

RAGSERVE = [sys.executable, "-m", "ragserve"]
TENANTS = ("north", "south")
MODEL_TOKENS = 40
WORKERS = 2


class World:
    """What runs. ``keys`` has a token for each tenant."""

    def __init__(self, directory: Path, cores: set[int]) -> None:
        self._directory = directory
        self.log = directory / "ragserve.log"
        self._cores = cores
        self._model: ExitStack | None = None
        self._model_port = free_port()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis = RedisServer(directory)
        make_directory(directory / "postgres")
        self.postgres = Node(directory / "postgres")
        self.server: Started
        self.keys: dict[str, str] = {}

    @contextmanager
    def running(self) -> Iterator[World]:
        """Run everything while the block runs."""
        with ExitStack() as stack:
            stack.callback(self.redis.kill)
            self.redis.start()
            stack.callback(self.postgres.stop)
            self.postgres.create()
            self.postgres.start()
            stack.callback(self.stop_model)
            self.start_model()
            self.keys = {tenant: self._key(tenant) for tenant in TENANTS}
            command = [*RAGSERVE, "serve", "--port", str(self.port), "--workers", str(WORKERS)]
            self.server = stack.enter_context(
                started(command, cores=self._cores, log=self.log, env=self._environment())
            )
            self.server.wait_ready(f"{self.url}/health", says=b'{"status":"ok"')
            yield self

    def start_model(self) -> None:
        """Start the model's server."""
        self._model = ExitStack()
        command = [sys.executable, "-m", "bench.upstream", "--port", str(self._model_port)]
        command += ["--tokens", str(MODEL_TOKENS), "--first-ms", "50", "--interval-ms", "25"]
        # Now and then it breaks off in the middle, as networks do.
        command += ["--fail", "reset", "--after", "20", "--every", "50"]
        log = self._directory / "model.log"
        process = self._model.enter_context(started(command, cores=self._cores, log=log))
        process.wait_listening(self._model_port)

    def stop_model(self) -> None:
        """End it."""
        if self._model is not None:
            self._model.close()
            self._model = None

    def workers(self) -> list[psutil.Process]:
        """Return the workers that live, oldest first."""
        found = [process for process in self.server.family() if "worker" in command_of(process)]
        return sorted(found, key=lambda process: process.create_time())

    def ready_workers(self) -> list[psutil.Process]:
        """Return those of them that answer: one that hangs as it starts is given more time."""
        with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
            found = json.load(response)["workers"]
        ready = {one["pid"] for one in found if one["state"] == "ready"}
        return [process for process in self.workers() if process.pid in ready]

    def processes(self) -> dict[str, psutil.Process]:
        """Return all of ragserve's processes, by role and process id."""
        family = self.server.family()
        roles = {"worker": "worker", "ingester": "ingester", "serve": "supervisor"}
        return {
            f"{role} {process.pid}": process
            for process in family
            for word, role in roles.items()
            if word in command_of(process)
        }

    def reload(self) -> None:
        """Replace all processes, one after another."""
        self.server.send(signal.SIGHUP)

    def _environment(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.postgres.dsn(),
            "REDIS_URL": self.redis.url,
            "RAGSERVE_STORAGE__DATA_DIR": str(self._directory / "data"),
            "RAGSERVE_LOG__ACCESS": "false",
            "RAGSERVE_LLM__BASE_URL": f"http://127.0.0.1:{self._model_port}/v1",
            "RAGSERVE_LLM__MODEL": "paced",
            "RAGSERVE_ANSWER__MIN_SIMILARITY": "0",
            # Full within minutes: what grows after that is a leak.
            "RAGSERVE_CACHE__MEMORY_BYTES": str(4 * 1024**2),
            "RAGSERVE_EMBEDDING__CACHE_BYTES": str(1024**2),
        }

    def _key(self, tenant: str) -> str:
        command = [*RAGSERVE, "keys", "create", tenant, "--tenant", tenant]
        done = subprocess.run(
            [*command, "--scope", "query", "--scope", "ingest"],
            env={**os.environ, **self._environment()},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        found = re.search(r"rs_\S+", done.stdout)
        if found is None:
            raise RuntimeError(f"no key in: {done.stdout}")
        return found[0]


@contextmanager
def make_world(directory: Path, cores: set[int]) -> Iterator[World]:
    """Run a world in ``directory``, which PostgreSQL's user can enter."""
    directory.chmod(0o755)
    # It makes the system user that PostgreSQL runs as when this is root.
    embedded = EmbeddedPostgres(directory / "first")
    embedded.acquire()
    embedded.release()
    with World(directory, cores).running() as world:
        yield world
