"""A disposable host: namespaces with a root, processes and a systemd of their own.

The root is this machine's, or that of another Debian in a folder, seen through an overlay in
memory: what is written there is gone with the host. /tmp and /run are its own, since systemd
empties them. The network is shared, unless asked for otherwise.
It is a pivoted root, no chroot: from within a chroot no user namespace can be made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SYSTEMD = Path("/lib/systemd/systemd")
BOOT_S = 30.0
COMMAND_S = 300.0
PYTHON = "/opt/ragserve/python"
BOOT = """
set -eu
dir=$1; lower=$2; shift 2
mount -t tmpfs -o mode=755 tmpfs "$dir"
mkdir "$dir/upper" "$dir/work" "$dir/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" overlay "$dir/root"
cd "$dir/root"
for inner in "$@"; do mkdir -p "./${inner#*:}"; mount --bind "${inner%%:*}" "./${inner#*:}"; done
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
for own in run tmp var/tmp; do mount -t tmpfs tmpfs $own; chmod 1777 $own; done
mkdir -p run/lock
mount --rbind /dev dev && mount --make-rslave dev
rm -f etc/machine-id && : > etc/machine-id
mkdir -p old && pivot_root . old && umount -l old && mount --make-rshared /
export container=other
exec /lib/systemd/systemd --unit=basic.target --log-target=journal
"""


def unsupported() -> str | None:
    """Return why no host can be booted here, None if one can."""
    if os.geteuid() != 0:
        return "needs root"
    if not SYSTEMD.exists() or shutil.which("nsenter") is None:
        return "needs systemd, unshare and nsenter"
    probe = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w /mnt/r && mount -t overlay -o "
    probe += "lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w overlay /mnt/r && "
    probe += "mount -t cgroup2 none /mnt/r/sys"
    tried = subprocess.run(
        ["unshare", "--mount", "--cgroup", "sh", "-c", probe],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"no mounts allowed: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """A booted host; ``pid`` is its systemd's."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def inside(self) -> list[str]:
        """Return the start of a command line whose rest runs in the host."""
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-n", "-r", "-w"]

    def run(self, *command: str) -> str:
        """Run a command in the host and return what it says; it must succeed."""
        done = self._run(command)
        if done.returncode:
            journal = self._run(
                (
                    "journalctl",
                    "--no-pager",
                    "-n",
                    "40",
                    "-o",
                    "cat",
                    "-u",
                    "ragserve@*",
                    "-u",
                    "ragserve*",
                )
            ).stdout
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}\n{journal}")
        return done.stdout

    def wait_booted(self, until: float) -> None:
        """Wait until systemd has nothing left to start."""
        while self._run(("systemctl", "is-system-running")).stdout.strip() not in (
            "running",
            "degraded",
        ):
            assert time.monotonic() < until, "systemd does not come up"
            time.sleep(0.05)

    def write(self, path: str, text: str) -> None:
        """Write a file of the host."""
        self._run(("mkdir", "-p", str(Path(path).parent)))
        done = self._run(("tee", path), text)
        assert done.returncode == 0, done.stderr

    def _run(self, command: tuple[str, ...], given: str = "") -> subprocess.CompletedProcess[str]:
        clean = ["env", "-i", "container=other", f"PATH={os.environ['PATH']}"]
        return subprocess.run(
            [*self.inside(), *clean, *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )


@contextmanager
def booted(
    directory: Path,
    mounts: Mapping[str, str],
    *,
    own_network: bool = False,
    lower: Path = Path("/"),
) -> Iterator[Host]:
    """Boot a host on ``directory`` that looks like ``lower``; it sees ``mounts`` at their values.

    With ``own_network`` it has a loopback that nothing else reaches, and nothing beyond.
    """
    spaces = ["--pid", "--mount", "--cgroup", "--uts", "--ipc", "--propagation", "private"]
    spaces += ["--net"] if own_network else []
    binds = [f"{outside}:{inside}" for outside, inside in mounts.items()]
    boot = ["sh", "-c", BOOT, "boot", str(directory), str(lower), *binds]
    with (directory.parent / "console").open("w") as console:
        process = subprocess.Popen(
            ["unshare", "--fork", "--kill-child", *spaces, *boot],
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    try:
        until = time.monotonic() + BOOT_S
        host = Host(_first_child(process, until))
        host.wait_booted(until)
        if own_network:
            host.run("ip", "link", "set", "lo", "up")
        yield host
    finally:
        process.kill()
        process.wait(BOOT_S)


def ragserve_mounts() -> dict[str, str]:
    """Return where a host sees this checkout, its packages and their interpreter.

    Units see neither /root nor /home nor this machine's /tmp, where any of them may lie.
    """
    mounts = {
        str(Path(__file__).parents[2]): "/opt/ragserve/source",
        sysconfig.get_path("purelib"): "/opt/ragserve/packages",
    }
    return mounts if sys.base_prefix == "/usr" else {**mounts, sys.base_prefix: PYTHON}


def launcher() -> str:
    """Return a program that runs this checkout's Python with its arguments."""
    interpreter = Path(os.path.realpath(sys.executable))
    if sys.base_prefix != "/usr":
        interpreter = Path(PYTHON, interpreter.relative_to(os.path.realpath(sys.base_prefix)))
    paths = f"PYTHONPATH=/opt/ragserve/source:/opt/ragserve/packages LD_LIBRARY_PATH={PYTHON}/lib"
    return f'#!/bin/sh\nexport {paths}\nexec {interpreter} "$@"\n'


def _first_child(process: subprocess.Popen[bytes], until: float) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < until and process.poll() is None:
        if (found := children.read_text(encoding="ascii").split()) and _is_systemd(int(found[0])):
            return int(found[0])
        time.sleep(0.02)
    raise AssertionError("the host does not boot")


def _is_systemd(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == "systemd"
