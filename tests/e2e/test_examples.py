"""The examples of the README files, run as they stand against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DOCUMENTS
from tests.e2e.conftest import environment, ragserve, running

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8080"
SHELL = f"""
set -euo pipefail
curl() {{ command curl -sS --fail-with-body --max-time 60 "$@"; echo; }}
ragserve() {{ {sys.executable} -m ragserve "$@"; }}
"""


def examples(path: str, language: str) -> list[str]:
    """Return the fenced blocks of a language that speak to a server."""
    text = (ROOT / path).read_text(encoding="utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if ADDRESS in block and "systemctl" not in block]


def run(command: list[str], url: str, directory: Path, data_dir: Path) -> str:
    """Run a block in a directory; return what it prints."""
    *start, block = command
    done = subprocess.run(
        [*start, block.replace(ADDRESS, url)],
        cwd=directory,
        env=environment(data_dir, PYTHONWARNINGS="default", PATH=os.environ["PATH"]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def test_every_example_works(data_dir: Path, tmp_path: Path) -> None:
    """curl and OpenAI's SDK get what the text promises; the one that makes keys comes last."""
    if shutil.which("curl") is None:
        pytest.skip("apt-get install curl")
    shutil.copy(DOCUMENTS / "handbook" / "onboarding.pdf", tmp_path / "report.pdf")
    assert ragserve(data_dir, "ingest", str(DOCUMENTS / "handbook")).returncode == 0
    async with running(data_dir, "--workers", "1") as server:
        said = ""
        for path in ("README.md", "conf/README.md"):
            for block in examples(path, "python"):
                said += run([sys.executable, "-c", block], server.url, tmp_path, data_dir)
            for block in sorted(examples(path, "sh"), key=lambda block: "keys create" in block):
                shell = ["bash", "-c", SHELL + block]
                said += run(shell, server.url, tmp_path, data_dir)
        for promised in ("Die Suppe kocht eine Stunde.", "event: sources", '"status":"ok"', "384"):
            assert promised in said, said
