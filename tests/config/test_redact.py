"""What leaves the host holds no secret."""

from __future__ import annotations

import pytest

from ragserve.config import load_config, redacted, render, secrets_of

SECRET = "canary-7f3a"


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("llm.api_key", SECRET, "***"),
        ("embedding.api_key", SECRET, "***"),
        ("database.dsn", f"postgresql://me:{SECRET}@db:5432/rag", "postgresql://***@db:5432/rag"),
        ("database.dsn", f"postgresql:///rag?password={SECRET}", "postgresql:///rag?password=***"),
        ("redis.url", f"rediss://:{SECRET}@cache:6379/1", "rediss://***@cache:6379/1"),
        (
            "redis.url",
            f"redis+sentinel://me:{SECRET}@one:1,two:2/main",
            "redis+sentinel://***@one:1,two:2/main",
        ),
        ("llm.base_url", f"https://me:{SECRET}@host/v1", "https://***@host/v1"),
    ],
)
def test_secrets_are_hidden(name: str, value: str, shown: str) -> None:
    """Keys are hidden whole, of addresses only what authenticates; hidden values are known."""
    config = load_config(overrides={name: value})
    section, _, setting = name.partition(".")
    assert getattr(getattr(redacted(config), section), setting) == shown
    assert SECRET not in render(redacted(config), "")
    assert SECRET in secrets_of(config)


def test_what_is_no_secret_stays() -> None:
    """The defaults are the same without their secrets, of which they have none."""
    config = load_config(overrides={"llm.max_tokens": 7, "chunking.max_tokens": 99})
    assert redacted(config) == config
    assert secrets_of(config) == []
