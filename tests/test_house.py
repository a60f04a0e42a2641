"""The house rules: lint, types, layers, sizes, and documents that follow the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import render
from bench.marked import filled
from bench.results import read_all
from conf import reference
from ragserve.config import render_defaults

ROOT = Path(__file__).parent.parent
MODULE_LINES = 400
ROOMS = ("bench", "conf", "nginx", "tests")


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
        for folder in ("ragserve", "bench", "conf", "tests")
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


def test_the_reference_is_complete() -> None:
    """conf/README.md explains every setting, metric, exit code and command that there is."""
    text = (ROOT / "conf" / "README.md").read_text(encoding="utf-8")
    assert filled(text, reference.MODULE, reference.reference()) == text, (
        "run `python -m conf.reference`"
    )


def test_every_number_is_rendered() -> None:
    """What the Markdown files show of measurements is what bench/results says."""
    for path, body in render.places(read_all()).items():
        text = path.read_text(encoding="utf-8")
        assert filled(text, render.MODULE, body) == text, f"run `python -m bench.render`: {path}"


def test_links_lead_somewhere() -> None:
    """Files that the Markdown files name are there, and so are the headings."""
    for path in [*ROOT.glob("*.md"), *(ROOT / name / "README.md" for name in ROOMS)]:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            name, _, heading = target.partition("#")
            there = path.parent / name if name else path
            assert there.exists(), f"{path}: {target}"
            assert not heading or heading in headings(there), f"{path}: {target}"


def test_tests_that_are_named_are_there() -> None:
    """SECURITY.md and tests/README.md point at tests: each file, and each function in it."""
    for path in (ROOT / "SECURITY.md", ROOT / "tests" / "README.md"):
        text = path.read_text(encoding="utf-8")
        for name, function in re.findall(r"`(?:tests/)?([\w/]+\.py)(?:::(\w+))?", text):
            found = [file for file in (ROOT / "tests").rglob("*.py") if str(file).endswith(name)]
            assert found, f"{path.name}: {name}"
            wanted = f"def {function}("
            assert not function or any(wanted in file.read_text("utf-8") for file in found), (
                f"{path.name}: {name}::{function}"
            )


def headings(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of a file's headings."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line).lower().replace(" ", "-") for line in lines}


def test_metrics_follow_one_convention() -> None:
    """Every metric has the prefix, a unit that Prometheus knows, and a sentence of help."""
    found = reference.all_metrics()
    assert found
    for metric in found:
        name = metric._name
        assert re.fullmatch(r"ragserve_[a-z_]+", name), name
        assert metric._documentation.endswith("."), name
        assert metric._type != "histogram" or name.endswith("_seconds"), name
