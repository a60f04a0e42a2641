"""What is judged of a host, by numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragserve.cli.checks.host import (
    check_host,
    judge_clock,
    judge_disk,
    judge_memory,
    judge_open_files,
    judge_sysctls,
)
from ragserve.config import Config, RedisConfig

GOOD = {
    "net.core.somaxconn": 4096,
    "net.ipv4.tcp_max_syn_backlog": 4096,
    "net.ipv4.tcp_migrate_req": 1,
    "vm.overcommit_memory": 0,
    "vm.max_map_count": 65530,
}


@pytest.mark.parametrize(
    ("free", "total", "inodes", "verdict"),
    [
        (50e9, 100e9, True, "pass"),
        (5e9, 100e9, True, "warn"),
        (150e9, 4000e9, True, "pass"),
        (0.5e9, 100e9, True, "fail"),
        (50e9, 100e9, False, "fail"),
    ],
)
def test_room_on_disk(free: float, total: float, inodes: bool, verdict: str) -> None:
    """A tenth, or a hundred gigabytes; without a gigabyte PostgreSQL would stop."""
    found = judge_disk(int(free), int(total), inodes, Path("/data"))
    assert (found.verdict, bool(found.remedy)) == (verdict, verdict != "pass")


def test_memory_for_all_workers() -> None:
    """Sixteen workers need more than two gigabytes."""
    assert judge_memory(int(2e9), Config(), 4).verdict == "pass"
    assert judge_memory(int(2e9), Config(), 16).verdict == "warn"


@pytest.mark.parametrize(("limit", "verdict"), [(65536, "pass"), (1024, "warn"), (300, "fail")])
def test_open_files(limit: int, verdict: str) -> None:
    """Fewer than a thousand users may open is doubtful, fewer than the server opens is bad."""
    assert judge_open_files(limit, Config(), "of worker 0").verdict == verdict


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("net.core.somaxconn", 128, "sysctl -w net.core.somaxconn=4096"),
        ("net.ipv4.tcp_max_syn_backlog", 128, "sysctl -w net.ipv4.tcp_max_syn_backlog=4096"),
        ("vm.overcommit_memory", 2, "sysctl -w vm.overcommit_memory=1"),
        ("vm.max_map_count", 1000, "sysctl -w vm.max_map_count=65530"),
    ],
)
def test_the_kernels_settings(name: str, value: int, remedy: str) -> None:
    """Each that is too small has the command that mends it."""
    (good,) = judge_sysctls(GOOD, Config())
    assert good.verdict == "pass"
    (found,) = judge_sysctls({**GOOD, name: value}, Config())
    assert (found.verdict, found.remedy) == ("warn", remedy)


def test_overcommit_matters_to_a_redis_on_this_host() -> None:
    """It forks to save; a Redis elsewhere has its own kernel."""
    for url, verdict in (("redis://127.0.0.1:6379", "warn"), ("redis://10.0.0.2:6379", "pass")):
        (found,) = judge_sysctls(GOOD, Config(redis=RedisConfig(url=url)))
        assert found.verdict == verdict


def test_the_clock() -> None:
    """TIME_ERROR of adjtimex(2) is a clock that nobody sets."""
    assert judge_clock(5).verdict == "warn"
    assert judge_clock(0).verdict == "pass"


def test_this_host(tmp_path: Path) -> None:
    """Everything that is read is there to be read."""
    found = check_host(Config(), tmp_path, tmp_path / "run", 1)
    assert {one.name for one in found} == {"disk", "memory", "open files", "sysctl", "clock"}
