"""Addresses: only listed proxies are believed, and an IPv6 network counts as one client."""

from __future__ import annotations

import pytest

from ragserve.edge.address import Proxies
from ragserve.errors import ConfigurationError
from ragserve.flow.address import identity_of


@pytest.mark.parametrize(
    ("peer", "told", "expected"),
    [
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "203.0.113.7, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("198.51.100.1", "203.0.113.7", "198.51.100.1"),
        ("fd00::1", "2001:db8::5", "2001:db8::5"),
        ("", "203.0.113.7", "203.0.113.7"),
    ],
)
def test_the_first_hop_that_is_not_ours(peer: str, told: str | None, expected: str) -> None:
    """Right to left; what a client put in front is nobody's address."""
    assert Proxies("10.0.0.0/8, fd00::/8").client(peer, told) == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "unknown"),
        ("::1", "unknown"),
        ("", "203.0.113.7"),
    ],
)
def test_a_proxy_that_is_not_listed(peer: str, expected: str) -> None:
    """Its clients are not on this machine because it is; a worker's own socket needs no list."""
    assert Proxies("").client(peer, "203.0.113.7") == expected
    assert Proxies("").client(peer, None) == peer


def test_a_network_that_is_none() -> None:
    """The setting is named with what is wrong."""
    with pytest.raises(ConfigurationError, match=r"^server\.trusted_proxies: .*10\.0\.0\.0/99"):
        Proxies("10.0.0.0/99")


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_who_counts_as_one(address: str, identity: str) -> None:
    """A household has 2⁶⁴ addresses and one bucket."""
    assert identity_of(address) == identity
