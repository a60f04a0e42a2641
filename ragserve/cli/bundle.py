"""``support-bundle``: what somebody who helps will ask for, without secrets, in one file.

Each part is gathered by itself, for a bundle is wanted when something does not work: what cannot be
had is a line in ``missing.txt``.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import io
import os
import platform
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import msgspec

from ragserve import __version__
from ragserve.cli.check import examine, report
from ragserve.cli.checks.host import read_sysctls
from ragserve.cli.scrub import Scrubber, known_secrets, shown_environment
from ragserve.cli.status import processes
from ragserve.config import Config, redacted, render
from ragserve.errors import RagserveError
from ragserve.host.members import run_directory

HEAD = "# The settings in use; *** stands for a secret.\n"
LOG_LINES = 5000
LOG_BYTES = 4 * 1024**2
PROGRAM_S = 20.0
HTTP_S = 5.0
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen
HOST_FILES = ("/etc/os-release", "/proc/meminfo", "/proc/loadavg", "/proc/self/limits")
PROGRAMS = {
    "disk.txt": ("df", "-hT"),
    "sockets.txt": ("ss", "-s"),
    "journal.txt": (
        *("journalctl", "--no-pager", "--output=short-iso", f"--lines={LOG_LINES}"),
        *("--unit=ragserve*", "--unit=postgresql*", "--unit=redis*", "--unit=nginx*"),
    ),
    "units.txt": ("systemctl", "--no-pager", "--all", "status", "ragserve*"),
}


def run(config: Config, config_file: Path | None, data_dir: Path, file: Path | None) -> int:
    """Write the bundle; say where it is and what is not in it."""
    now = dt.datetime.now(dt.UTC)
    name = f"ragserve-support-{socket.gethostname()}-{now:%Y%m%dT%H%M%S}.tar.gz"
    path = file if file is not None else Path(name)
    scrub = Scrubber(known_secrets(config, os.environ))
    missing: list[str] = []
    parts = {}
    for part, gather in _parts(config, config_file, data_dir).items():
        try:
            parts[part] = scrub(gather())
        except (OSError, RagserveError, subprocess.SubprocessError, ValueError) as error:
            missing.append(scrub(f"{part}: {error}"))
    parts["missing.txt"] = "\n".join(missing) + "\n"
    _write(path, parts, int(now.timestamp()))
    click.echo(f"{path}: {len(parts)} files, {path.stat().st_size / 1e3:.0f} kB, without secrets")
    click.echo("client addresses and names of collections may be in it: look before you send it")
    for line in missing:
        click.echo(f"not in it: {line}", err=True)
    return 0


def _parts(
    config: Config, config_file: Path | None, data_dir: Path
) -> dict[str, Callable[[], str]]:
    """Return what makes each file of the bundle."""
    found = examine(config, config_file, data_dir, os.environ)
    run_dir = run_directory(config.storage, data_dir, os.environ)
    lines = processes(run_dir)
    server = config.server
    host = ANY_HOST.get(server.host, server.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    return {
        "version.txt": lambda: f"ragserve {__version__}, Python {platform.python_version()}\n",
        "host.txt": _host,
        "configuration.toml": lambda: render(redacted(config), HEAD),
        "environment.txt": lambda: _assignments(shown_environment(os.environ)),
        "packages.txt": _packages,
        "check.txt": lambda: report(found) + "\n",
        "check.json": lambda: _json(found),
        "status.json": lambda: _json(lines),
        "health.json": lambda: _fetch(f"{url}/health"),
        "metrics.txt": lambda: _fetch(f"{url}/metrics"),
        "postgres.log": lambda: _tail(data_dir / "postgres" / "log"),
        **{name: _program(*command) for name, command in PROGRAMS.items()},
    }


def _host() -> str:
    facts = [platform.platform(), f"{os.cpu_count()} cores, pid 1 is {_first_process()}"]
    facts.append(f"user {os.geteuid()}, uptime {time.clock_gettime(time.CLOCK_BOOTTIME):.0f} s")
    facts += [f"{name} = {value}" for name, value in read_sysctls().items()]
    texts = [f"\n{name}\n{Path(name).read_text('utf-8')}" for name in HOST_FILES]
    return "\n".join([*facts, *texts])


def _first_process() -> str:
    return Path("/proc/1/comm").read_text("utf-8").strip()


def _packages() -> str:
    found = {
        f"{distribution.metadata['Name']}=={distribution.version}"
        for distribution in importlib.metadata.distributions()
    }
    return "\n".join(sorted(found, key=str.lower)) + "\n"


def _assignments(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode() + "\n"


def _fetch(url: str) -> str:
    """Return what this host's server says; a proxy of the environment is not asked for it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=HTTP_S) as response:
            return str(response.read(LOG_BYTES).decode())
    except urllib.error.HTTPError as error:
        return f"{error.read(LOG_BYTES).decode(errors='replace')}\nstatus {error.code}\n"
    except urllib.error.URLError as error:
        raise RagserveError(f"{url}: {error.reason}") from error


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_BYTES))
        return file.read().decode(errors="replace")


def _program(name: str, *arguments: str) -> Callable[[], str]:
    def said() -> str:
        program = shutil.which(name)
        if program is None:
            raise FileNotFoundError(f"{name} is not installed")
        done = subprocess.run(  # noqa: S603 - found above
            [program, *arguments], capture_output=True, timeout=PROGRAM_S, check=False
        )
        return (done.stdout or done.stderr)[-LOG_BYTES:].decode(errors="replace")

    return said


def _write(path: Path, parts: Mapping[str, str], at: int) -> None:
    """Write an archive that only its owner may read."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise RagserveError(f"{path}: {error.strerror}") from error
    folder = path.name.removesuffix(".gz").removesuffix(".tar")
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in parts.items():
            content = text.encode()
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, at
            archive.addfile(member, io.BytesIO(content))
