"""A real nginx with the project's own files: only what the operator's files name is changed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.test_utils import unused_port

FILES = Path(__file__).parents[2] / "nginx"
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
START_S = 20.0

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is absent: apt-get install nginx")


class Edge:
    """A running nginx that serves ``https://localhost:PORT``."""

    def __init__(self, directory: Path, port: int, authority: trustme.CA) -> None:
        self.directory = directory
        self.port = port
        self.url = f"https://localhost:{port}"
        self.tls = ssl.create_default_context()
        self.maintenance = directory / "maintenance"
        authority.configure_trust(self.tls)

    def client(self, address: str = "127.0.0.1") -> aiohttp.ClientSession:
        """Return a client whose connections come from ``address``."""
        connector = aiohttp.TCPConnector(ssl=self.tls, local_addr=(address, 0), limit=0)
        return aiohttp.ClientSession(self.url, connector=connector)

    def log(self) -> str:
        """Return what nginx has complained about."""
        return (self.directory / "error.log").read_text(encoding="utf-8")


def install(directory: Path, workers: Sequence[str], port: int) -> trustme.CA:
    """Copy the project's files to ``directory`` as an operator does, with other names in them."""
    shutil.copytree(FILES, directory, dirs_exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    chain = directory / "chain.pem"
    for number, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(str(chain), append=number > 0)
    lines = (f"server {worker} max_fails=1 fail_timeout=2s;\n" for worker in workers)
    (directory / "workers.conf").write_text("".join(lines), encoding="utf-8")
    temporary = "".join(
        f"    {kind}_temp_path {directory}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    changes = {
        r"user www-data;": "user root;" if os.geteuid() == 0 else "",
        r"(?m)^worker_rlimit_nofile .*$": "",
        r"worker_connections \d+": "worker_connections 1024",
        r"/run/nginx\.pid": f"{directory}/pid",
        r"/var/log/nginx": str(directory),
        r"http \{\n": f"http {{\n{temporary}",
        r"(?m)^ *listen \[::\].*\n": "",
        r"listen 80;": f"listen 127.0.0.1:{unused_port()};",
        r"listen 443": f"listen 127.0.0.1:{port}",
        r"rag\.example\.org;": "localhost;",
        r"/etc/ssl/.*/fullchain\.pem": str(chain),
        r"/etc/ssl/.*/privkey\.pem": str(directory / "key.pem"),
        r"/etc/nginx": str(directory),
        r"127\.0\.0\.0/8 0;": "127.0.0.1 0;",
    }
    for name in ("nginx.conf", "ragserve.conf", "ragserve/errors.conf"):
        file = directory / name
        text = file.read_text(encoding="utf-8")
        for old, new in changes.items():
            text = re.sub(old, new, text)
        file.write_text(text, encoding="utf-8")
    return authority


def command(directory: Path, *arguments: str) -> list[str]:
    """Return the command line that runs nginx on the files in ``directory``."""
    assert NGINX is not None
    errors = str(directory / "error.log")
    conf = str(directory / "nginx.conf")
    return [NGINX, "-p", str(directory), "-c", conf, "-e", errors, *arguments]


def set_limits(directory: Path, limits: Mapping[str, str]) -> None:
    """Give directives that stand once in ragserve/ another value: ``{"send_timeout": "1s"}``."""
    for name, value in limits.items():
        changed = 0
        for file in (directory / "ragserve").iterdir():
            text = file.read_text(encoding="utf-8")
            text, count = re.subn(rf"(?m)^({name}) [^;]+;", rf"\1 {value};", text)
            file.write_text(text, encoding="utf-8")
            changed += count
        assert changed == 1, name


@asynccontextmanager
async def edge(
    directory: Path, *workers: str, limits: Mapping[str, str] | None = None
) -> AsyncIterator[Edge]:
    """Run nginx in front of ``workers``, which are addresses of nginx's own form.

    ``limits`` are directives that have another value than the files say, so that a test is short.
    """
    port = unused_port()
    running = Edge(directory, port, install(directory, workers, port))
    set_limits(directory, limits or {})
    process = await asyncio.create_subprocess_exec(
        *command(directory, "-g", "daemon off;"), stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_S):
            while True:
                assert process.returncode is None, running.log()
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.02)
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def answer(response: aiohttp.ClientResponse) -> tuple[int, Any]:
    """Return status and JSON body."""
    async with response:
        return response.status, await response.json()
