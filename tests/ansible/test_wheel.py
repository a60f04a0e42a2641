"""The wheel: what the playbooks install is all there is."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.ansible.wheels import ROOT, build


def test_the_wheel_is_complete(tmp_path: Path) -> None:
    """Every file of the package and every systemd unit is in it, byte for byte, and no other."""
    version = "0.0.7"
    with zipfile.ZipFile(build(tmp_path, version)) as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist()}
    units = f"ragserve-{version}.data/data/share/ragserve/systemd"
    expected = {
        str(file.relative_to(ROOT)): file.read_bytes()
        for file in (ROOT / "ragserve").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    expected |= {f"{units}/{file.name}": file.read_bytes() for file in (ROOT / "systemd").iterdir()}
    about = f"ragserve-{version}.dist-info/"
    assert {name for name in held if not name.startswith(about)} == set(expected)
    assert {name for name in expected if held[name] != expected[name]} == set()
