"""Base URLs: what they mean, and what is none."""

from __future__ import annotations

import pytest

from ragserve.errors import ConfigurationError
from ragserve.upstream.origin import parse_base_url


def test_a_base_url_has_parts() -> None:
    """Scheme, host, port and path are told apart; default ports are not in the Host header."""
    plain = parse_base_url("http://models:8000/v1/")
    assert (plain.host, plain.port, plain.tls, plain.path) == ("models", 8000, False, "/v1")
    assert plain.authority == "models:8000"
    safe = parse_base_url("https://api.example.com/openai/v1")
    assert (safe.port, safe.tls, safe.authority) == (443, True, "api.example.com")
    assert parse_base_url("http://[::1]:80").authority == "[::1]"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "models:8000",
        "ftp://models",
        "http://",
        "http://h:99999",
        "http://u:p@h",
        "http://h?a=b",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    """The message is about base_url; a password in it is not shown."""
    with pytest.raises(ConfigurationError, match="base_url") as refused:
        parse_base_url(url)
    assert "u:p" not in refused.value.message
