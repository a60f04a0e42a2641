"""What leaves the host holds no secret."""

from __future__ import annotations

import tomllib

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


def test_servers_in_a_list_have_secrets_too() -> None:
    """Keys and addresses of [[llm.upstreams]] are hidden, and the file can be read again."""
    server = {"base_url": f"https://me:{SECRET}@host/v1", "api_key": "canary-other", "weight": 2}
    config = load_config(overrides={"llm.upstreams": [server]})
    text = render(redacted(config), "")
    assert SECRET not in text
    assert "canary-other" not in text
    assert {SECRET, "canary-other"} <= set(secrets_of(config))
    (read,) = tomllib.loads(text)["llm"]["upstreams"]
    assert read["base_url"] == "https://***@host/v1"
    assert (read["api_key"], read["weight"]) == ("***", 2.0)
