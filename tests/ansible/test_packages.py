"""PostgreSQL and Redis from a distribution's packages, on a Debian made for the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.conftest import PGVECTOR, Debian
from tests.ansible.control import Control
from tests.ansible.debian import source
from tests.ansible.test_playbooks import URL, all_ready, health, processes
from tests.ansible.wheels import build
from tests.systemd.host import Host

DOCUMENTS = {
    "documents": [
        {"id": "menu", "title": "Canteen", "text": "On Friday there is fish."},
        {"id": "hours", "title": "Hours", "text": "The canteen closes at three."},
        {"id": "cook", "title": "Kitchen", "text": "Ada cooks from Monday to Thursday."},
    ]
}
QUESTIONS = ("What is there on Friday?", "When does the canteen close?", "Who cooks on Monday?")
USERS = "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'ragserve'"
DESTROY = """
systemctl stop ragserve.target
find /var/lib/ragserve -mindepth 1 -delete
runuser -u postgres -- dropdb ragserve
runuser -u postgres -- createdb --owner ragserve ragserve
runuser -u postgres -- psql -qd ragserve -c 'CREATE EXTENSION vector'
redis-cli flushall
"""
RESTORE = """
install -o ragserve -t /var/lib/ragserve /srv/monday.zip
ragserve restore monday.zip
systemctl start ragserve.target
"""
MIGRATION = {"ragserve/store/migrations/9999_more.sql": "CREATE TABLE more (n integer)"}


@pytest.fixture
def variables(debian: Debian) -> dict[str, Any]:
    """Two workers with the packages' PostgreSQL and Redis."""
    return {
        "ragserve_wheel": str(debian.wheel),
        "ragserve_wheelhouse": str(debian.wheelhouse),
        "ragserve_workers": 2,
        "ragserve_config": {
            "log": {"access": False},
            "embedding": {"provider": "hashing"},
            "answer": {"min_similarity": 0.1},
        },
        "ragserve_database": "package",
        "ragserve_redis": "package",
    }


def post(host: Host, path: str, body: object) -> dict[str, Any]:
    """Return the answer to a request, which must be good."""
    asked = ("curl", "-sS", "--fail-with-body", "--json", json.dumps(body), f"{URL}{path}")
    return dict(json.loads(host.run(*asked)))


def answers(host: Host) -> list[Any]:
    """Return what the host answers to each question, and from what, once its index is whole."""
    post(host, "/v1/documents?wait=30", {"id": "probe", "text": "Something to wait for."})
    found = []
    for question in QUESTIONS:
        body = post(host, "/v1/query", {"query": question})
        cited = [(one["document_id"], one["text"]) for one in body["citations"]]
        found.append((body["answer"], cited))
    return found


@pytest.mark.nightly
def test_packages_from_nothing_to_a_way_back(
    bare_host: Host, tmp_path: Path, variables: dict[str, Any]
) -> None:
    """Sources without pgvector are refused with the remedy; with it the host serves from packages,
    a second run changes nothing, a backup brings the answers back after the data's end, and another
    one takes a release back that has changed the tables."""
    host = bare_host
    operator = Control(host, tmp_path / "operator")
    refused = operator.play("site", variables=variables)
    assert refused.code != 0
    assert "has no pgvector for PostgreSQL 17" in " ".join(refused.output.split())
    assert "ragserve_postgresql_repository" in refused.output
    assert "postgresql" not in host.run("ls", "/etc")

    variables["ragserve_postgresql_repository"] = source(PGVECTOR)
    first = operator.play("site", variables=variables)
    assert first.code == 0, first.output
    for options in ([], ["--check"]):
        again = operator.play("site", *options, variables=variables)
        assert (again.code, again.changed) == (0, []), again.output
    dependencies = health(host)["dependencies"]
    assert {dependencies[name]["status"] for name in ("database", "redis")} == {"ok"}
    assert host.run("runuser", "-u", "postgres", "--", "psql", "-XAtc", USERS) == "t\n"

    post(host, "/v1/documents?wait=30", DOCUMENTS)
    before = answers(host)
    assert [cited[0][0] for _, cited in before] == ["menu", "hours", "cook"]
    assert int(host.run("redis-cli", "dbsize")) > 0
    host.run("ragserve", "backup", "monday.zip")
    host.run("mv", "/var/lib/ragserve/monday.zip", "/srv/")
    host.run("sh", "-euc", DESTROY)
    host.run("sh", "-euc", RESTORE)
    assert answers(host) == before

    more = build(tmp_path / "wheels", "1.1.0", added=MIGRATION)
    upgraded = operator.play("upgrade", variables={**variables, "ragserve_wheel": str(more)})
    assert upgraded.code == 0, upgraded.output
    assert "Change the tables" in upgraded.changed
    refused = operator.play("rollback", variables=variables)
    assert refused.code != 0
    assert "it was migrated by a newer release" in refused.output
    assert processes(host) == all_ready("1.1.0")
    host.run("systemctl", "stop", "ragserve.target")
    back = "RAGSERVE_RELEASE=1.0.0 ragserve restore before-1.1.0.backup --force"
    host.run("sh", "-euc", back)
    play = operator.play("rollback", variables=variables)
    assert play.code == 0, play.output
    assert processes(host) == all_ready("1.0.0")
    assert answers(host) == before
