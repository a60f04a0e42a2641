"""Wheels of this checkout: as it is, under another version, or with a fault in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
"""That of a disposable host: even its patch level decides what is needed."""
PARTS = ("ragserve", "conf", "nginx", "systemd", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


def run(*command: str) -> None:
    """Run a command; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def pip(python: str, *arguments: str) -> None:
    """Run pip."""
    run(python, "-m", "pip", "--disable-pip-version-check", *arguments)


def build(
    directory: Path,
    version: str,
    *,
    fault: tuple[str, str, str] | None = None,
    added: Mapping[str, str] | None = None,
) -> Path:
    """Return a wheel in ``directory``; ``fault`` is a module, a line in it and what replaces it.

    ``added`` are files that this checkout has not, by name.
    """
    source = directory / f"source-{version}"
    source.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, source / part)
    project = source / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    versioned, count = re.subn(r'(?m)^version = ".*"$', f'version = "{version}"', text)
    assert count == 1
    project.write_text(versioned, encoding="utf-8")
    if fault is not None:
        name, line, replacement = fault
        module = source / name
        text = module.read_text(encoding="utf-8")
        assert line in text
        module.write_text(text.replace(line, replacement), encoding="utf-8")
    for name, text in (added or {}).items():
        (source / name).write_text(text, encoding="utf-8")
    pip(sys.executable, "wheel", "-q", "--no-deps", "--wheel-dir", str(directory), str(source))
    return directory / f"ragserve-{version}-py3-none-any.whl"


def wheelhouse(directory: Path, wheel: Path) -> Path:
    """Return a tar of everything that ``wheel`` needs with the system's Python."""
    run(PYTHON, "-m", "venv", str(directory / "venv"))
    python = str(directory / "venv" / "bin" / "python")
    pip(python, "wheel", "-q", "--wheel-dir", str(directory / "wheelhouse"), str(wheel))
    return packed(directory / "wheelhouse", wheel)


def packed(house: Path, wheel: Path) -> Path:
    """Return a tar beside the folder ``house`` of all wheels in it but ``wheel``."""
    (house / wheel.name).unlink()
    tar = house.with_suffix(".tar")
    run("tar", "-cf", str(tar), "-C", str(house), ".")
    return tar
