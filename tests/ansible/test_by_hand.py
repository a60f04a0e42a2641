"""What conf/README.md has an operator type on a host without Ansible, typed on one."""

from __future__ import annotations

import re

import pytest

from tests.ansible.conftest import MAIN, PGVECTOR
from tests.ansible.debian import source
from tests.ansible.test_playbooks import all_ready, health, processes
from tests.ansible.wheels import ROOT
from tests.systemd.host import Host

START = r"""
set -euo pipefail
cd /srv/first
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheelhouse PIP_DISABLE_PIP_VERSION_CHECK=1
export DEBIAN_FRONTEND=noninteractive
apt-get() { command apt-get -qq -y "$@"; }
"""
"""An operator's shell, whose pip and apt ask neither a network nor a person."""
SWITCHED = """
systemctl reload ragserve@1 ragserve-ingest
until [ "$(curl -sS http://127.0.0.1:8080/health | grep -o '"version":"1.1.0"' | wc -l)" = 4 ]; do
  sleep 0.2
done
"""


def section(heading: str) -> str:
    """Return what stands under a heading of conf/README.md."""
    text = (ROOT / "conf" / "README.md").read_text(encoding="utf-8")
    _, part = re.split(rf"(?m)^#+ {re.escape(heading)}$", text)
    # A comment in a block looks like a heading.
    after = re.search(r"(?m)^#+ .*$", re.sub(r"(?ms)^```.*?^```", "", part))
    assert after
    return part.partition(f"\n{after[0]}\n")[0]


def blocks(heading: str) -> list[str]:
    """Return the shell blocks under a heading."""
    return re.findall(r"(?ms)^```sh\n(.*?)^```", section(heading))


def type_in(host: Host, *typed: str) -> str:
    """Type blocks into one shell in the folder of the wheel and return what is said."""
    return host.run("setsid", "-w", "bash", "-c", START + "\n".join(typed))


@pytest.mark.nightly
def test_production_and_an_upgrade_by_hand(bare_host: Host) -> None:
    """Every command works as it stands, and the host answers; then the next release does, and the
    commands of the troubleshooting say something."""
    host = bare_host
    host.write("/etc/apt/sources.list", f"{source(MAIN)}\n{source(PGVECTOR)}\n")
    host.run("apt-get", "update")

    database = "\n".join(blocks("PostgreSQL"))
    asked = "createuser --pwprompt ragserve"
    assert asked in database
    # The text's placeholder is the password, which is asked for twice.
    type_in(host, database.replace(asked, f"{asked} <<< $'PASSWORD\\nPASSWORD'"))

    by_hand = blocks("By hand")
    type_in(host, *by_hand)
    state = health(host)
    assert (state["status"], state["version"]) == ("ok", "1.0.0")
    assert processes(host) == all_ready("1.0.0")

    _, upgrade = blocks("Backup, upgrade, rollback")
    assert "ragserve-NEW.whl" in upgrade
    (secrets,) = re.findall(r"(?m)^export .*$", "\n".join(by_hand))
    upgrade = upgrade.replace("ragserve-NEW.whl", "/srv/next/ragserve-1.1.0-py3-none-any.whl")
    type_in(host, secrets, upgrade, SWITCHED)
    assert processes(host) == all_ready("1.1.0")

    table = section("Troubleshooting").replace("\\|", "|")
    shown = re.findall(r"`((?:ragserve|ss|journalctl|systemctl) [^`]+)`", table)
    assert len(shown) > 8
    said = type_in(host, secrets, *blocks("Troubleshooting"), *shown)
    for expected in ("127.0.0.1:8080", "worker_ready", "MemoryCurrent=", "intranet", "rss"):
        assert expected in said, said
