"""Where a server is: the parts of its base URL."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import msgspec

from ragserve.errors import ConfigurationError

PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True):
    """``path`` is what stands before the path of each call, without a slash at its end."""

    url: str
    host: str
    port: int
    tls: bool
    path: str

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            host if self.port == PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"
        )


def parse_base_url(url: str) -> Origin:
    """Return the origin of ``url``; raise ``ConfigurationError`` if it is none."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
    except ValueError as error:  # a port, brackets or a name that cannot be
        raise ConfigurationError(f"base_url {url!r}: {error}") from error
    if parts.scheme not in PORTS or not host:
        raise ConfigurationError(f"base_url {url!r}: must be http://host… or https://host…")
    if parts.username or parts.password:
        raise ConfigurationError("base_url: user and password do not belong there; use api_key")
    if parts.query or parts.fragment:
        raise ConfigurationError(f"base_url {url!r}: must end with a path, such as /v1")
    tls = parts.scheme == "https"
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._").rstrip("/")
    return Origin(url.strip().rstrip("/"), host, port or PORTS[parts.scheme], tls, path)
