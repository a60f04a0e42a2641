"""The host: room on disk and in memory, open files, what the kernel grants, the clock."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path

from ragserve.cli.checks.finding import Finding, doubtful, failed, passed
from ragserve.config import Config
from ragserve.host.members import Identity, members

DISK_FAIL_BYTES = 1e9
"""PostgreSQL stops when it cannot write its log."""
DISK_WARN_SHARE = 0.1
WORKER_BYTES = 300e6
"""Of a worker, before its caches; the ingest process takes about as much (bench, startup)."""
CLIENTS = 4096
"""Descriptors for clients of one worker: a thousand users with some connections each."""
SPARE_FILES = 256
SYSCTLS = (
    "net/core/somaxconn",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_migrate_req",
    "vm/overcommit_memory",
    "vm/max_map_count",
)
MAP_COUNT = 65530
CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR of adjtimex(2)
LOCAL = ("127.0.0.1", "localhost", "[::1]", "unix://")


def check_host(config: Config, data_dir: Path, run_dir: Path, workers: int) -> list[Finding]:
    """Return what the host grants ``workers`` workers."""
    return [
        check_disk(data_dir),
        judge_memory(available_bytes(), config, workers),
        check_open_files(config, run_dir),
        *judge_sysctls(read_sysctls(), config),
        judge_clock(clock_state()),
    ]


def check_disk(data_dir: Path) -> Finding:
    """Measure the file system of the data directory, or of what it would be made in."""
    place = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    status = os.statvfs(place)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    return judge_disk(free, total, status.f_favail or status.f_files == 0, data_dir)


def judge_disk(free: int, total: int, inodes: float | bool, data_dir: Path) -> Finding:
    """Judge ``free`` of ``total`` bytes; ``inodes`` is whether there are any left."""
    detail = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free at {data_dir}"
    if not inodes:
        return failed("disk", f"no inodes left at {data_dir}", "remove files, or grow the disk")
    if free < DISK_FAIL_BYTES:
        return failed("disk", detail, "make room: PostgreSQL stops when its disk is full")
    if free < DISK_WARN_SHARE * total and free < 100 * DISK_FAIL_BYTES:
        return doubtful("disk", detail, "make room, or move storage.data_dir to a larger disk")
    return passed("disk", detail)


def judge_memory(available: int, config: Config, workers: int) -> Finding:
    """Judge ``available`` bytes by what ``workers`` workers and the ingest process may take."""
    caches = config.cache.memory_bytes + config.embedding.cache_bytes
    needed = workers * (WORKER_BYTES + caches) + WORKER_BYTES
    detail = (
        f"{available / 1e9:.1f} GB available; {workers} workers with full caches take"
        f" about {needed / 1e9:.1f} GB"
    )
    if available < needed:
        return doubtful("memory", detail, "fewer --workers, or a smaller cache.memory_bytes")
    return passed("memory", detail)


def available_bytes() -> int:
    """Return the memory that new work can have, see proc_meminfo(5)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


def check_open_files(config: Config, run_dir: Path) -> Finding:
    """Look at the limit of a running worker, or else at what ``serve`` would take here."""
    living = members(run_dir)[0] if run_dir.is_dir() else []
    for worker in (one for one in living if one.name.isdecimal()):
        if (limit := _limit_of(worker)) is not None:
            return judge_open_files(limit, config, f"of worker {worker.name}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return judge_open_files(most, config, "that serve would take (no worker runs)")


def _limit_of(worker: Identity) -> int | None:
    try:
        limits = Path(f"/proc/{worker.pid}/limits").read_text(encoding="ascii").splitlines()
    except OSError:
        return None  # it has ended, or is another user's
    (line,) = (line for line in limits if line.startswith("Max open files"))
    return int(line.split()[3])


def judge_open_files(limit: int, config: Config, whose: str) -> Finding:
    """Judge a worker's limit of descriptors by the connections that it may have."""
    models = max(1, len(config.llm.servers)) * config.llm.connections
    own = config.database.connections + config.redis.connections + models + SPARE_FILES
    needed = CLIENTS + own
    detail = f"limit {limit} {whose}; {CLIENTS} clients and {own} of its own may be open"
    if limit < own:
        return failed("open files", detail, f"ulimit -Hn {needed}, or LimitNOFILE={needed}")
    if limit < needed:
        return doubtful("open files", detail, f"ulimit -Hn {needed}, or LimitNOFILE={needed}")
    return passed("open files", detail)


def read_sysctls(root: Path = Path("/proc/sys")) -> dict[str, int]:
    """Return what the kernel has of ``SYSCTLS``."""
    found = {}
    for name in SYSCTLS:
        try:
            found[name.replace("/", ".")] = int((root / name).read_text(encoding="ascii"))
        except OSError:
            continue  # an older kernel, or a container that hides it
    return found


def judge_sysctls(values: Mapping[str, int], config: Config) -> list[Finding]:
    """Judge the kernel's settings by what the configuration asks for."""
    backlog = config.server.backlog
    redis_here = any(place in config.redis.url for place in LOCAL)
    wrong: dict[str, tuple[Callable[[int], bool], int, str]] = {
        "net.core.somaxconn": (
            lambda value: value < backlog,
            backlog,
            f"caps server.backlog = {backlog}",
        ),
        "net.ipv4.tcp_max_syn_backlog": (
            lambda value: value < min(backlog, 1024),
            backlog,
            "crowds of new connections are answered with SYN cookies",
        ),
        "vm.overcommit_memory": (
            lambda value: value == 2 or (value == 0 and redis_here),
            1,
            "Redis on this host may fail to fork and save" if redis_here else "refuses memory maps",
        ),
        "vm.max_map_count": (
            lambda value: value < MAP_COUNT,
            MAP_COUNT,
            "the search index maps its files",
        ),
    }
    found = [
        doubtful("sysctl", f"{name} = {values[name]}: {why}", f"sysctl -w {name}={better}")
        for name, (is_wrong, better, why) in wrong.items()
        if name in values and is_wrong(values[name])
    ]
    if found:
        return found
    migrate = values.get("net.ipv4.tcp_migrate_req", 0)
    # Sockets outlive their workers here; the kernel's help matters when one is taken away.
    hint = "" if migrate else " (net.ipv4.tcp_migrate_req = 1 would help when a worker is removed)"
    return [passed("sysctl", f"{len(values)} settings looked at{hint}")]


def clock_state() -> int:
    """Return the kernel's state of the clock; nothing is changed."""
    buffer = ctypes.create_string_buffer(512)  # larger than struct timex; modes = 0
    return int(ctypes.CDLL(None).adjtimex(buffer))


def judge_clock(state: int) -> Finding:
    """Judge the kernel's state of the clock."""
    if state == CLOCK_UNSYNCHRONISED:
        return doubtful(
            "clock",
            "not synchronised: keys expire and logs are dated by it",
            "timedatectl set-ntp true, or install chrony",
        )
    return passed("clock", "synchronised")
