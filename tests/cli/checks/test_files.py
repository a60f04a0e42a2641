"""Files that others may read or write."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragserve.cli.checks import files
from ragserve.cli.checks.files import check_files
from ragserve.cli.checks.finding import Finding


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This host's own /etc is no part of the tests."""
    monkeypatch.setattr(files, "CREDENTIALS", tmp_path / "none")
    monkeypatch.setattr(files, "ENVIRONMENT", tmp_path / "none")


def found(data_dir: Path, config: Path | None = None, **environ: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_files(config, data_dir, environ)}


def test_a_data_directory_of_ones_own(tmp_path: Path) -> None:
    """It is made; who else may write into it is told; so is an index that everybody may read."""
    data_dir = tmp_path / "data"
    assert found(data_dir)["data directory"].verdict == "pass"
    (data_dir / "index").mkdir(mode=0o755)
    data_dir.chmod(0o755)
    assert found(data_dir)["data directory"].verdict == "warn"
    data_dir.chmod(0o750)
    assert found(data_dir)["data directory"].verdict == "pass"
    data_dir.chmod(0o770)
    assert found(data_dir)["data directory"].remedy == f"chmod go-w {data_dir}"


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    """A file in the way is named."""
    (tmp_path / "file").touch()
    finding = found(tmp_path / "file" / "data")["data directory"]
    assert (finding.verdict, finding.detail) == ("fail", f"{tmp_path}/file/data: Not a directory")


def test_secrets_in_the_configuration(tmp_path: Path) -> None:
    """A file with a secret is for its owner; one without may be read."""
    file = tmp_path / "ragserve.toml"
    file.write_text('[llm]\napi_key = "canary"\n', encoding="utf-8")
    file.chmod(0o644)
    finding = found(tmp_path, file)["configuration"]
    assert (finding.verdict, finding.remedy.split(",")[0]) == ("warn", f"chmod 600 {file}")
    file.chmod(0o600)
    assert found(tmp_path, file, RAGSERVE_A="1")["configuration"].detail == (
        f"{file}, over it RAGSERVE_A"
    )


def test_credentials_are_for_their_owner(tmp_path: Path) -> None:
    """One loose file fails, and the command that closes it is told."""
    directory = tmp_path / "credentials"
    directory.mkdir(mode=0o700)
    file = directory / "DATABASE_URL"
    file.touch(mode=0o600)
    given = {"CREDENTIALS_DIRECTORY": str(directory)}
    assert found(tmp_path, **given)["credentials"].verdict == "pass"
    file.chmod(0o640)
    finding = found(tmp_path, **given)["credentials"]
    assert (finding.verdict, finding.remedy) == ("fail", f"chmod go= {file}")
    assert "credentials" not in found(tmp_path)
