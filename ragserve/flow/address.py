"""Addresses of clients: which are on this machine, and which count as one. Pure."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


def is_loopback(address: str) -> bool:
    """Return whether a client is on this machine; "" is a Unix socket's."""
    if address in ("", "127.0.0.1", "::1"):
        return True
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


@lru_cache(4096)
def identity_of(address: str) -> str:
    """Return what is counted as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Address(int(found) >> 64 << 64)) + "/64"
    return address
