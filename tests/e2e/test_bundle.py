"""A bundle for whoever helps: all of it there, and no secret in it, wherever one was."""

from __future__ import annotations

import gzip
import json
import tarfile
from pathlib import Path

from ragserve.cli.scrub import Scrubber
from tests.e2e.conftest import ragserve, running

CANARIES = {
    "RAGSERVE_LLM__API_KEY": "canary-llm-key",
    "OPENAI_API_KEY": "canary-openai",
    "REDIS_URL": "redis://:canary-redis@127.0.0.1:1/0",
    "RAGSERVE_KEY": "rs_0123456789ab_canary-client-key",
    "PGPASSWORD": "canary-pgpassword",
    "MY_SECRET_TOKEN": "canary-unknown-token",
    "RAGSERVE_EMBEDDING__BASE_URL": "http://me:canary-in-url@127.0.0.1/v1?key=canary-query",
}


def contents(file: Path) -> dict[str, str]:
    """Return the texts of a bundle by name."""
    with tarfile.open(file) as archive:
        found = {}
        for member in archive.getmembers():
            text = archive.extractfile(member)
            assert text is not None
            found[member.name.partition("/")[2]] = text.read().decode()
        return found


async def test_a_bundle_holds_everything_but_secrets(data_dir: Path, tmp_path: Path) -> None:
    """Secrets in file, environment, credentials, addresses and logs: none is in the bundle."""
    config = tmp_path / "ragserve.toml"
    config.write_text(
        '[[llm.upstreams]]\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "canary-upstream"\n'
        '[database]\nreplica_dsn = "postgresql://u:canary%20replica@127.0.0.1:1/x"\n',
        encoding="utf-8",
    )
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "RAGSERVE_EMBEDDING__API_KEY").write_text("canary-credential\n", "utf-8")
    bundle = tmp_path / "bundle.tar.gz"
    async with running(data_dir, "--workers", "1") as server:
        log = data_dir / "postgres" / "log"
        with log.open("a", encoding="utf-8") as file:
            file.write("password=canary-in-log Authorization: Bearer canary-bearer\n")
            file.write("postgresql://u:canary-of-another@10.0.0.1/db sk-canary0123456789\n")
            file.write("canary replica\n")
        done = ragserve(
            data_dir,
            "support-bundle",
            str(bundle),
            f"--config={config}",
            f"--port={server.url.rpartition(':')[2]}",
            CREDENTIALS_DIRECTORY=str(credentials),
            http_proxy="http://127.0.0.1:1",  # asks nobody but this host's server
            **CANARIES,
        )
    assert done.returncode == 0, done.stderr
    assert bundle.stat().st_mode & 0o777 == 0o600
    found = contents(bundle)
    assert b"canary" not in gzip.decompress(bundle.read_bytes()), [
        (name, line)
        for name, text in found.items()
        for line in text.splitlines()
        if "canary" in line
    ]
    assert "canary" not in done.stdout + done.stderr
    assert json.loads(found["health.json"])["status"] in ("ok", "degraded")
    assert "ragserve_worker_up" in found["metrics.txt"]
    assert {line["worker"] for line in json.loads(found["status.json"])} == {"0", "ingester"}
    assert "replica" in {finding["name"] for finding in json.loads(found["check.json"])}
    assert 'api_key = "***"' in found["configuration.toml"]
    assert "RAGSERVE_LLM__API_KEY=***" in found["environment.txt"]
    assert "\naiohttp==" in found["packages.txt"]
    assert "Authorization: Bearer ***" in found["postgres.log"]


def test_a_bundle_when_nothing_works(data_dir: Path, tmp_path: Path) -> None:
    """Without a server and with a database that is away there is a bundle, and it says so."""
    bundle = tmp_path / "bundle.tar.gz"
    away = {"DATABASE_URL": "postgresql://u:canary-dsn@127.0.0.1:1/x"}
    done = ragserve(data_dir, "support-bundle", str(bundle), RAGSERVE_SERVER__PORT="1", **away)
    assert done.returncode == 0, done.stderr
    found = contents(bundle)
    assert "health.json: " in found["missing.txt"]
    assert "fail  database" in found["check.txt"]
    assert not any("canary" in text for text in found.values())
    again = ragserve(data_dir, "support-bundle", str(bundle), **away)
    assert (again.returncode, again.stderr) == (1, f"ragserve: {bundle}: File exists\n")


def test_short_secrets_do_not_hide_everything() -> None:
    """A password of one letter is hidden where it is one, not in every word."""
    scrub = Scrubber(["a", "long-secret", "long-secret-2"])
    assert scrub("a banana, long-secret-2") == "a banana, ***"
    assert scrub("postgresql://u:a@h/db") == "postgresql://***@h/db"
