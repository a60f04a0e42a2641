"""The configuration file in the repository is the truth about the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import pytest

from ragserve.config import Config, load_config, render_defaults

FILE = Path(__file__).parents[2] / "conf" / "ragserve.toml"
SETTINGS = [
    pytest.param(section.name, field, id=f"{section.name}.{field.name}")
    for section in msgspec.structs.fields(Config)
    for field in msgspec.structs.fields(section.type)
]


def test_the_committed_file_is_the_rendered_one() -> None:
    """conf/ragserve.toml shows every setting of this release with its default."""
    assert FILE.read_text(encoding="utf-8") == render_defaults()


def test_the_committed_file_changes_nothing() -> None:
    """Starting with conf/ragserve.toml is starting with the defaults."""
    assert load_config(FILE) == Config()


@pytest.mark.parametrize(("section", "field"), SETTINGS)
def test_every_setting_explains_itself(section: str, field: msgspec.structs.FieldInfo) -> None:
    """Every setting has a sentence, and the file shows it above the setting."""
    explanation = get_args(field.type)[1].description
    assert explanation
    assert explanation.endswith(".")
    body = render_defaults().partition(f"\n[{section}]\n")[2]
    assert f"# {explanation}\n{field.name} = " in body
