"""The playbooks on a Debian host with a systemd of its own: from nothing, and on from there.

What clients got while a host was worked on is printed; ``-s`` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ansible import control
from tests.ansible.control import Control, load
from tests.ansible.wheels import build, wheelhouse
from tests.systemd import host as hosts
from tests.systemd.host import Host, booted

URL = "http://127.0.0.1:8080"
CLIENTS = 8
LOAD_LIMIT_S = 400.0
RESTARTED = ("ragserve@0", "ragserve@1") * 5
WORKER = "ragserve/worker/run.py"
START = "        await site.start()\n"
Fault = tuple[str, str, str]
DIES: Fault = (WORKER, START, '        raise RuntimeError("this release is broken")\n')


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host of Debian on which nothing of ragserve is."""
    if reason := hosts.unsupported() or control.unsupported():
        pytest.skip(f"a host with systemd that ssh reaches: {reason}")
    (tmp_path / "root").mkdir()
    with booted(tmp_path / "root", {}, own_network=True) as host:
        yield host


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two workers, and a release 1.0.0 with all that it needs."""
    directory = tmp_path_factory.mktemp("release")
    wheel = build(directory, "1.0.0")
    return {
        "ragserve_wheel": str(wheel),
        "ragserve_wheelhouse": str(wheelhouse(directory, wheel)),
        "ragserve_workers": 2,
        "ragserve_config": {"log": {"access": False}, "embedding": {"provider": "hashing"}},
    }


def health(host: Host) -> dict[str, Any]:
    """Return what /health says; it must answer with 200."""
    answer = host.run("curl", "-sS", "--fail", f"{URL}/health")
    return dict(json.loads(answer))


def processes(host: Host) -> dict[str, tuple[str, str]]:
    """Return phase and release of every process of the host."""
    return {one["worker"]: (one["state"], one["version"]) for one in health(host)["workers"]}


def all_ready(version: str) -> dict[str, tuple[str, str]]:
    """Return what ``processes`` says of a host in order."""
    return dict.fromkeys(("0", "1", "ingester"), ("ready", version))


def pids(host: Host) -> list[str]:
    """Return the main processes of all units."""
    units = ("ragserve@0", "ragserve@1", "ragserve-ingest", "ragserve-database")
    return host.run("systemctl", "show", "-p", "MainPID", "--value", *units).split()


def upload(host: Host) -> None:
    """Give the host something to answer from."""
    menu = '{"id": "menu", "title": "Canteen", "text": "On Friday there is fish."}'
    host.run("curl", "-sS", "--fail", "--json", menu, f"{URL}/v1/documents?wait=30")


@pytest.mark.nightly
def test_from_nothing_to_serving(host: Host, tmp_path: Path, release: dict[str, Any]) -> None:
    """A host is set up, and does not change when nothing does; its workers are restarted, and other
    settings are brought into force, under load and without a request lost."""
    operator = Control(host, tmp_path / "operator")

    rehearsal = operator.play("site", "--check", "--diff", variables=release)
    assert rehearsal.code == 0, rehearsal.output
    assert "No such file" in host.run("sh", "-c", "ls /opt/ragserve 2>&1 || true")

    first = operator.play("site", variables=release)
    assert first.code == 0, first.output
    state = health(host)
    assert (state["status"], state["version"]) == ("ok", "1.0.0")
    assert processes(host) == all_ready("1.0.0")
    before = pids(host)

    for options in ([], ["--check"]):
        again = operator.play("site", *options, variables=release)
        assert (again.code, again.changed) == (0, []), again.output
        assert again.recap["changed"] == 0
    assert pids(host) == before

    wrong = {**release, "ragserve_config": {"cache": {"memory_byte": 1}}}
    refused = operator.play("site", variables=wrong)
    assert refused.code != 0
    assert "did you mean cache.memory_bytes" in refused.output
    assert pids(host) == before
    assert "memory_byte " not in host.run("cat", "/etc/ragserve/ragserve.toml")

    upload(host)
    with load(host, URL, CLIENTS, LOAD_LIMIT_S) as seen:
        for unit in RESTARTED:
            host.run("systemctl", "restart", unit)
    assert set(seen) == {"200"}, seen
    print(f"{len(RESTARTED)} restarts", seen)  # noqa: T201
    restarted = pids(host)
    assert {one == other for one, other in zip(before[:2], restarted[:2], strict=True)} == {False}

    changed = {**release, "ragserve_secrets": {"RAGSERVE_SEARCH__TOP_K": "7"}}
    with load(host, URL, CLIENTS, LOAD_LIMIT_S) as seen:
        play = operator.play("site", variables=changed)
    assert play.code == 0, play.output
    assert set(play.changed) >= {"Write the secrets", "Restart ragserve@0", "Restart ragserve@1"}
    assert set(seen) == {"200"}, seen
    print("other settings", seen)  # noqa: T201
    assert pids(host)[3] == before[3]


@pytest.mark.nightly
def test_an_upgrade_and_the_way_back(host: Host, tmp_path: Path, release: dict[str, Any]) -> None:
    """A host is upgraded and rolled back under load without a request lost."""
    operator = Control(host, tmp_path / "operator")
    first = operator.play("site", variables=release)
    assert first.code == 0, first.output
    before = pids(host)
    upload(host)

    upgrade = {**release, "ragserve_wheel": str(build(tmp_path / "wheels", "1.1.0"))}
    with load(host, URL, CLIENTS, LOAD_LIMIT_S) as seen:
        play = operator.play("upgrade", variables=upgrade)
    assert play.code == 0, play.output
    assert processes(host) == all_ready("1.1.0")
    assert set(seen) == {"200"}, seen
    print("upgrade", seen)  # noqa: T201
    again = operator.play("upgrade", variables=upgrade)
    assert (again.code, again.changed) == (0, []), again.output

    with load(host, URL, CLIENTS, LOAD_LIMIT_S) as seen:
        play = operator.play("rollback", variables=release)
    assert play.code == 0, play.output
    assert processes(host) == all_ready("1.0.0")
    assert set(seen) == {"200"}, seen
    print("rollback", seen)  # noqa: T201
    again = operator.play("rollback", variables=release)
    assert (again.code, again.changed) == (0, []), again.output
    assert pids(host)[3] == before[3]


@pytest.mark.nightly
def test_a_release_that_does_not_start(host: Host, tmp_path: Path, release: dict[str, Any]) -> None:
    """It is taken back by itself under load: without a request lost, and with the reason said."""
    operator = Control(host, tmp_path / "operator")
    first = operator.play("site", variables=release)
    assert first.code == 0, first.output
    before = pids(host)
    upload(host)

    broken = build(tmp_path / "wheels", "1.2.0", fault=DIES)
    with load(host, URL, CLIENTS, LOAD_LIMIT_S) as seen:
        play = operator.play("upgrade", variables={**release, "ragserve_wheel": str(broken)})
    assert play.code != 0
    assert "did not become ready with 1.2.0 and is back at 1.0.0" in play.output, play.output
    assert processes(host) == all_ready("1.0.0")
    assert set(seen) == {"200"}, seen
    print("broken", seen)  # noqa: T201
    assert pids(host)[3] == before[3]
