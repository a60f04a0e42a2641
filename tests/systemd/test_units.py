"""The units: what systemd itself says of them, without running it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
EXPOSURE_LIMIT = 11
"""Of systemd-analyze(1), in tenths: 1.1."""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_the_units_are_free_of_faults(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about an instance and what it needs."""
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="utf-8")
        (tmp_path / unit.name).write_text(text.replace("/opt/ragserve/bin/ragserve", "/bin/true"))
    names = (
        "ragserve@0.service",
        "ragserve@0.socket",
        "ragserve-ingest.service",
        "ragserve-database.service",
    )
    command = ["systemd-analyze", "verify", "--man=no", *names, "ragserve.target"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    "name", [f"ragserve{kind}.service" for kind in ("@0", "-ingest", "-database")]
)
def test_little_is_exposed(tmp_path: Path, name: str) -> None:
    """The exposure that `systemd-analyze security` finds is at most 1.1 of 10."""
    shutil.copy(UNITS / name.replace("@0", "@"), tmp_path / name)
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}"]
    done = subprocess.run(
        [*command, "--json=short", name], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    exposed = [line for line in json.loads(done.stdout) if line["exposure"]]
    assert done.returncode == 0, exposed
