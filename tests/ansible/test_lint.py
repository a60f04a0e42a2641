"""The playbooks as files: what ansible-lint and Ansible's own parser say of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLAYBOOKS = Path(__file__).parent.parent.parent / "conf" / "ansible"
PROGRAMS = Path(sys.executable).parent


def run(home: Path, *command: str) -> None:
    """Run a program of this environment beside the playbooks; it must find nothing wrong."""
    done = subprocess.run(
        command,
        cwd=PLAYBOOKS,
        env={
            **os.environ,
            "ANSIBLE_HOME": str(home),
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("playbook", ["site", "upgrade", "rollback"])
def test_playbooks_are_understood(tmp_path: Path, playbook: str) -> None:
    """Ansible reads every playbook with the example's inventory."""
    inventory = ("-i", "inventory.example.yml")
    run(tmp_path, "ansible-playbook", *inventory, f"{playbook}.yml", "--syntax-check")


def test_ansible_lint_has_nothing_to_say(tmp_path: Path) -> None:
    """Not even with the profile for production."""
    run(tmp_path, "ansible-lint", "--offline", "--profile", "production", ".")
