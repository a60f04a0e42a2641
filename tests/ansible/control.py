"""Ansible as an operator runs it: ssh, to an sshd that a host of tests.systemd starts for it.

The connection does not go over a network: ssh's ProxyCommand enters the host and is its sshd.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.systemd.host import Host

PLAYBOOKS = Path(__file__).parents[2] / "conf" / "ansible"
SSHD = "/usr/sbin/sshd"
SSHD_CONFIG = """
HostKey /etc/ssh/test_host_key
AuthorizedKeysFile /etc/ssh/test_authorized_keys
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
"""
PLAY_S = 600.0


def unsupported() -> str | None:
    """Return why Ansible cannot reach a host here, None if it can."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        return "needs openssh-server and openssh-client"
    return None


def program(name: str) -> str:
    """Return a program of this environment."""
    return str(Path(sys.executable).with_name(name))


class Play(NamedTuple):
    """How a playbook ended: its exit code, what it printed, and a host's line of the recap."""

    code: int
    output: str

    @property
    def recap(self) -> dict[str, int]:
        """The numbers of the recap; they must be there."""
        line = re.search(r"^rag1 .*", self.output, re.MULTILINE)
        assert line, self.output
        return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line[0])}

    @property
    def changed(self) -> list[str]:
        """The tasks that changed something."""
        parts = re.split(r"^TASK \[", self.output, flags=re.MULTILINE)[1:]
        return [
            part.split("]")[0].removeprefix("ragserve : ")
            for part in parts
            if re.search(r"^changed:", part, re.M)
        ]


class Control:
    """The machine from which an operator runs playbooks on one host, rag1."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._directory = directory
        directory.mkdir()
        key = directory / "key"
        for path in (key, directory / "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        public = key.with_suffix(".pub").read_text(encoding="ascii")
        host.write("/etc/ssh/test_authorized_keys", public)
        host.write("/etc/ssh/test_host_key", (directory / "host_key").read_text(encoding="ascii"))
        host.run("chmod", "600", "/etc/ssh/test_host_key")
        host.write("/etc/ssh/test_sshd_config", SSHD_CONFIG)
        host.run("mkdir", "-p", "/run/sshd")
        sshd = shlex.join([*host.inside(), SSHD, "-i", "-f", "/etc/ssh/test_sshd_config"])
        options = f"-i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        inventory = {
            "ragserve": {
                "hosts": {
                    "rag1": {
                        "ansible_connection": "ssh",
                        "ansible_host": "rag1.test",
                        "ansible_user": "root",
                        "ansible_python_interpreter": "/usr/bin/python3",
                        "ansible_ssh_common_args": f"{options} -o ProxyCommand='{sshd}'",
                    }
                }
            }
        }
        self._inventory = directory / "inventory.json"
        self._inventory.write_text(json.dumps(inventory), encoding="utf-8")

    def start(
        self, playbook: str, *options: str, variables: dict[str, Any]
    ) -> subprocess.Popen[str]:
        """Start a playbook."""
        given = self._directory / "variables.json"
        given.write_text(json.dumps(variables), encoding="utf-8")
        command = [program("ansible-playbook"), "-i", str(self._inventory), "-e", f"@{given}"]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
            "ANSIBLE_HOME": str(self._directory / "home"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._directory / "cp"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.Popen(
            [*command, *options, f"{playbook}.yml"],
            cwd=PLAYBOOKS,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def play(self, playbook: str, *options: str, variables: dict[str, Any]) -> Play:
        """Run a playbook to its end."""
        process = self.start(playbook, *options, variables=variables)
        try:
            output, _ = process.communicate(timeout=PLAY_S)
        finally:
            process.kill()
        return Play(process.returncode, output)


@contextmanager
def load(host: Host, url: str, clients: int, limit_s: float) -> Iterator[dict[str, int]]:
    """Ask the host meanwhile; what came of it is in the mapping after the context."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.ansible.load", url, str(clients), str(limit_s)]
    seen: dict[str, int] = {}
    process = subprocess.Popen(
        ["nsenter", "-t", str(host.pid), "-n", *command],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield seen
        output, _ = process.communicate(timeout=limit_s)
        assert process.returncode == 0
        seen.update(json.loads(output))
    finally:
        process.kill()
        process.wait()
