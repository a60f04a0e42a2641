"""Whose address a request has: the connection's, or what a trusted proxy says.

A worker's own Unix socket is there for a proxy: whoever may open it is believed.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from aiohttp import web

from ragserve.errors import ConfigurationError
from ragserve.flow.address import is_loopback

UNKNOWN = "unknown"
"""The address of whoever comes through a proxy on this machine that is not listed (RFC 7239, 6.2).

It is not that of the proxy: without keys clients on this machine may do everything.
"""


class Proxies:
    """Networks whose ``X-Forwarded-For`` is believed."""

    def __init__(self, networks: str) -> None:
        """Take networks with commas between them; raise ``ConfigurationError``."""
        try:
            self._networks = [ip_network(one.strip()) for one in networks.split(",") if one.strip()]
        except ValueError as error:
            raise ConfigurationError(f"server.trusted_proxies: {error}") from error

    def client(self, peer: str, forwarded_for: str | None) -> str:
        """Return the last address before the first hop, from the right, that is trusted no more."""
        if forwarded_for is None:
            return peer
        if not self.trusts(peer):
            return UNKNOWN if is_loopback(peer) else peer
        address = peer
        for hop in reversed(forwarded_for.split(",")):
            told = hop.strip()
            try:
                ip_address(told)
            except ValueError:
                return address  # whatever stands before it is anybody's invention
            address = told
            if not self.trusts(address):
                break
        return address

    def trusts(self, address: str) -> bool:
        """Return whether an address is one of ours."""
        if address == "":  # a Unix socket: whoever may open it
            return True
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(found in network for network in self._networks)


PROXIES = web.AppKey("proxies", Proxies)
ADDRESS = web.RequestKey("address", str)
"""Where a request is from; there is none on routes for everybody."""
