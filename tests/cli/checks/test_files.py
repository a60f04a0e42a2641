"""Files that others may read or write."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from ragserve.cli.checks import files
from ragserve.cli.checks.files import ACL, ACL_ENTRY, check_files
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


@pytest.mark.parametrize(("reader", "verdict"), [("myself", "pass"), ("somebody else", "fail")])
def test_a_credential_that_an_acl_opens(tmp_path: Path, reader: str, verdict: str) -> None:
    """systemd leaves credentials to root and names the service's user in an ACL; the group's bits
    of the mode are then no group's."""
    directory = tmp_path / "credentials"
    directory.mkdir(mode=0o700)
    file = directory / "DATABASE_URL"
    file.touch(mode=0o400)
    nobody = 0xFFFFFFFF
    user = os.geteuid() if reader == "myself" else 4242
    entries = ((0x01, 4, nobody), (0x02, 4, user), (0x04, 0, nobody), (0x10, 4, nobody))
    acl = b"".join(ACL_ENTRY.pack(*entry) for entry in (*entries, (0x20, 0, nobody)))
    try:
        os.setxattr(file, ACL, struct.pack("<I", 2) + acl)
    except OSError as error:
        pytest.skip(f"{tmp_path} knows no ACL: {error.strerror}")
    assert file.stat().st_mode & 0o077 == 0o040
    given = {"CREDENTIALS_DIRECTORY": str(directory)}
    assert found(tmp_path, **given)["credentials"].verdict == verdict
