"""The profiles in conf/: each loads, and says only what differs from the defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from ragserve.config import Config, load_config
from ragserve.edge.address import Proxies

CONF = Path(__file__).parent.parent.parent / "conf"
PROFILES = ("simple", "scaled", "high-perf")


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_only_what_it_changes(name: str) -> None:
    path = CONF / f"{name}.toml"
    config = load_config(path, {})
    defaults = msgspec.to_builtins(Config())
    chosen = msgspec.to_builtins(config)
    said = tomllib.loads(path.read_text(encoding="utf-8"))
    assert said
    for section, settings in said.items():
        for setting, value in settings.items():
            assert chosen[section][setting] == value
            assert defaults[section][setting] != value or section == "server", (
                f"[{section}] {setting} = {value!r} is the default"
            )
    assert Proxies(config.server.trusted_proxies) is not None


def test_every_file_is_known() -> None:
    """A profile that nobody loads would rot."""
    assert {path.stem for path in CONF.glob("*.toml")} == {*PROFILES, "ragserve"}
