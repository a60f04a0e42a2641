"""The files: nginx takes them, and every route of the API has its class."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.nginx.edge import command, install, needs_nginx

pytestmark = needs_nginx


def test_nginx_finds_no_fault(tmp_path: Path) -> None:
    """`nginx -t` has nothing to complain about, with TLS 1.2 as without."""
    install(tmp_path, ["unix:/run/ragserve/worker-0.sock", "127.0.0.1:8080"], 8443)
    for _ in range(2):
        done = subprocess.run(
            command(tmp_path, "-t", "-q"), capture_output=True, text=True, check=False
        )
        log = (tmp_path / "error.log").read_text(encoding="utf-8")
        assert (done.returncode, log + done.stderr) == (0, "")
        conf = tmp_path / "ragserve.conf"
        text = conf.read_text(encoding="utf-8")
        conf.write_text(
            text.replace("ssl_protocols TLSv1.3;", "ssl_protocols TLSv1.2 TLSv1.3;"),
            encoding="utf-8",
        )
