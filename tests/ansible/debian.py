"""Another Debian than this machine's: its root, its packages in a folder, and wheels for it."""

from __future__ import annotations

import ensurepip
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.ansible.wheels import packed, run

DEBOOTSTRAP = shutil.which("debootstrap", path="/usr/sbin:/usr/bin")
BASE = (
    "apt-utils",
    "ca-certificates",
    "curl",
    "iproute2",
    "openssh-server",
    "python3",
    "systemd-sysv",
)
"""What an operator finds on a new host, and what the tests look with."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
PACK = "mv /var/cache/apt/archives/*.deb . && apt-ftparchive packages . > Packages"


def make_root(root: Path, suite: str, archives: Mapping[str, tuple[str, ...]]) -> None:
    """Make a Debian in ``root``; each of ``archives`` is a folder that apt can be pointed at.

    It holds the packages named and what they need, without what is in the folders before it. The
    root's own list of sources is empty.
    """
    assert DEBOOTSTRAP is not None
    run(DEBOOTSTRAP, "--variant=minbase", f"--include={','.join(BASE)}", suite, str(root))
    shutil.copy(CERTIFICATES, root / CERTIFICATES[1:])
    inside(root, "apt-get update -qq && apt-get clean")
    had: list[str] = []
    for folder, packages in archives.items():
        had += packages
        get = "apt-get install -qq -y --download-only --no-install-recommends"
        inside(root, f"mkdir {folder} && {get} {' '.join(had)}")
        inside(root, f"cd {folder} && {PACK}")
    inside(root, "rm -rf /etc/apt/sources.list.d/* /var/lib/apt/lists/*; : > /etc/apt/sources.list")


def source(folder: str) -> str:
    """Return the line of sources.list for a folder."""
    return f"deb [trusted=yes] file:{folder} ./"


def wheelhouse(root: Path, wheel: Path) -> Path:
    """Return a tar of everything that ``wheel`` needs with the Python of ``root``."""
    pip = next((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    for file in (pip, wheel):
        shutil.copy(file, root / "srv" / file.name)
    house = "/srv/wheelhouse"
    inside(root, f"python3 /srv/{pip.name}/pip wheel -q --wheel-dir {house} /srv/{wheel.name}")
    return packed(root / house[1:], wheel)


def inside(root: Path, script: str) -> None:
    """Run a shell script in ``root`` before it is a host; it must succeed."""
    environment = ["DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"]
    environment += [f"PIP_CERT={CERTIFICATES}", "PIP_DISABLE_PIP_VERSION_CHECK=1"]
    run("chroot", str(root), "env", "-i", *environment, "sh", "-euc", script)
