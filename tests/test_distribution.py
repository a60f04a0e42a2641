"""What is released: an sdist of the whole repository, and the wheel that is built from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SHARED = (
    "systemd/*",
    "conf/*.toml",
    "conf/README.md",
    "conf/grafana/*",
    "conf/prometheus/*",
    "nginx/*.*",
    "nginx/ragserve/*",
)
"""What a host needs beside the program, in ``share/ragserve``."""
Files = dict[str, bytes]


def run(*command: str, cwd: Path) -> str:
    """Run a command, which must succeed; return what it says."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository without what git ignores."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    directory = tmp_path_factory.mktemp("released") / "source"
    ignore = shutil.ignore_patterns(".git", "PKG-INFO", *(name.strip("/") for name in ignored))
    return shutil.copytree(ROOT, directory, ignore=ignore)


@pytest.fixture(scope="module")
def repository(source: Path) -> Files:
    """Every file of the repository."""
    return {
        str(file.relative_to(source)): file.read_bytes()
        for file in source.rglob("*")
        if file.is_file()
    }


@pytest.fixture(scope="module")
def released(repository: Files, source: Path) -> Path:
    """A directory with both archives."""
    out = source.parent / "out"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), cwd=source)
    return out


def test_the_sdist_is_the_repository(repository: Files, released: Path) -> None:
    """Every file is in it, byte for byte, and nothing else than what setuptools adds."""
    top = f"ragserve-{VERSION}/"
    with tarfile.open(released / f"ragserve-{VERSION}.tar.gz") as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        held = {
            member.name.removeprefix(top): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in files
        }
    added = {name for name in held if name == "PKG-INFO" or name.startswith("ragserve.egg-info/")}
    del held["setup.cfg"]  # setuptools writes a section of its own into it
    assert set(held) - added == set(repository) - {"setup.cfg"}
    assert {name for name in set(held) - added if held[name] != repository[name]} == set()


def test_the_wheel_is_complete(repository: Files, released: Path) -> None:
    """The package, migrations and tokenizer too, and what a host needs are in it, and no other."""
    with zipfile.ZipFile(released / f"ragserve-{VERSION}-py3-none-any.whl") as wheel:
        held = {name: wheel.read(name) for name in wheel.namelist()}
    share = f"ragserve-{VERSION}.data/data/share/ragserve"
    expected = {name: text for name, text in repository.items() if name.startswith("ragserve/")}
    assert {"ragserve/store/migrations/0001_initial.sql", "ragserve/embed/tokenizer.json"} <= set(
        expected
    )
    expected |= {
        f"{share}/{file.relative_to(ROOT)}": file.read_bytes()
        for pattern in SHARED
        for file in ROOT.glob(pattern)
    }
    about = f"ragserve-{VERSION}.dist-info/"
    licenses = {name.rpartition("/")[2] for name in held if name.startswith(f"{about}licenses/")}
    assert licenses == {"LICENSE", "NOTICE"}
    assert {name for name in held if not name.startswith(about)} == set(expected)
    assert {name for name in expected if held[name] != expected[name]} == set()


def test_an_index_would_take_both(released: Path) -> None:
    """Their descriptions can be shown."""
    said = run(
        sys.executable, "-m", "twine", "check", "--strict", *map(str, released.iterdir()), cwd=ROOT
    )
    assert said.count("PASSED") == 2


def test_the_changelog_has_this_release() -> None:
    """Its first section is that of the version."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert text.split("\n## ")[1].startswith(f"{VERSION} (20")
