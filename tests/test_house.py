"""The house rules: lint, types, layers, sizes, and documents that follow the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ragserve import metrics
from ragserve.config import render_defaults

ROOT = Path(__file__).parent.parent
MODULE_LINES = 400


def run(*command: str) -> str:
    """Run a tool of this environment in the project's root; return what it says if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_tools_find_nothing(command: tuple[str, ...]) -> None:
    """ruff and mypy (strict) have nothing to say."""
    assert run(*command) == ""


def test_imports_point_downward() -> None:
    """The layers of setup.cfg hold."""
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_modules_are_small() -> None:
    """No module needs scrolling without end."""
    sizes = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for folder in ("ragserve", "bench", "tests")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert {name: size for name, size in sizes.items() if size > MODULE_LINES} == {}


def test_ci_runs_the_readmes_test_command() -> None:
    """What CI runs and what the README tells people to run are the same line."""
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert last in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()


def test_the_configuration_file_has_every_setting() -> None:
    """conf/ragserve.toml is what the types say."""
    assert (ROOT / "conf" / "ragserve.toml").read_text(encoding="utf-8") == render_defaults()


def test_metrics_follow_one_convention() -> None:
    """Every metric has the prefix, a unit that Prometheus knows, and a sentence of help."""
    found = [value for value in vars(metrics).values() if hasattr(value, "_documentation")]
    assert found
    for metric in found:
        name = metric._name
        assert re.fullmatch(r"ragserve_[a-z_]+", name), name
        assert metric._documentation.endswith("."), name
        assert metric._type != "histogram" or name.endswith("_seconds"), name
