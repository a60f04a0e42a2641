"""A Debian that is made once for all tests that boot it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ansible import control
from tests.ansible.debian import DEBOOTSTRAP, make_root, source, wheelhouse
from tests.ansible.wheels import build
from tests.systemd import host as hosts
from tests.systemd.host import Host, booted

SUITE = "trixie"
"""The first Debian with a pgvector that is new enough."""
MAIN = "/srv/debian"
PGVECTOR = "/srv/pgvector"
ARCHIVES = {
    MAIN: ("dbus", "procps", "python3-apt", "python3-venv", "postgresql", "redis-server"),
    PGVECTOR: ("postgresql-17-pgvector",),
}


class Debian(NamedTuple):
    """A root directory, a wheel, and a tar of all that it needs there.

    Within it /srv/first has that wheel, /srv/next one of a next release, and /srv/wheelhouse what
    both need.
    """

    root: Path
    wheel: Path
    wheelhouse: Path


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """A Debian that can install PostgreSQL and Redis without a network; pgvector lies apart."""
    if reason := hosts.unsupported() or control.unsupported():
        pytest.skip(f"a host with systemd that ssh reaches: {reason}")
    if DEBOOTSTRAP is None:
        pytest.skip("debootstrap is absent: apt-get install debootstrap")
    directory = tmp_path_factory.mktemp("debian")
    make_root(directory / "root", SUITE, ARCHIVES)
    wheel = build(directory / "wheels", "1.0.0")
    inside = directory / "root" / "srv"
    for folder, file in (("first", wheel), ("next", build(directory / "wheels", "1.1.0"))):
        (inside / folder).mkdir()
        shutil.copy(file, inside / folder)
    return Debian(directory / "root", wheel, wheelhouse(directory / "root", wheel))


@pytest.fixture
def bare_host(debian: Debian, tmp_path: Path) -> Iterator[Host]:
    """That Debian, booted, as it was made; it does not know of pgvector."""
    (tmp_path / "host").mkdir()
    with booted(tmp_path / "host", {}, own_network=True, lower=debian.root) as host:
        host.write("/etc/apt/sources.list", f"{source(MAIN)}\n")
        yield host
