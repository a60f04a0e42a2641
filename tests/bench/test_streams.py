"""A paced model and its readers: every token counted, every way to break noticed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.process import free_port, started

TOKENS = 20


@contextmanager
def _upstream(directory: Path, *options: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
    command += ["--tokens", str(TOKENS), "--first-ms", "20", "--interval-ms", "20", *options]
    with started(command, cores={0}, log=directory / "upstream.log") as process:
        process.wait_listening(port)
        yield f"http://127.0.0.1:{port}"


def _read(url: str, streams: int = 5) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.readers", "--url", url, "--tokens", str(TOKENS)]
    command += ["--streams", str(streams), "--ramp-s", "0.05", "--window-s", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_every_token_arrives(tmp_path: Path) -> None:
    """Streams without a relay are whole."""
    with _upstream(tmp_path) as url:
        report = _read(url)
    assert (report["streams"], report["broken"], report["failures"]) == (5, 0, {})


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        ("reset", "ConnectionResetError(104, 'Connection reset by peer')"),
        ("429", "HTTP/1.1 429 Too Many Requests"),
    ],
)
def test_what_breaks_is_noticed(tmp_path: Path, failure: str, seen: str) -> None:
    """Broken streams are counted by what happened to them."""
    with _upstream(tmp_path, "--fail", failure, "--after", "3") as url:
        report = _read(url)
    assert (report["broken"], report["failures"]) == (5, {seen: 5})
