"""Who asks while there are no keys: always the same, and as often as they like."""

from __future__ import annotations

from ragserve.edge.lane import Principal
from ragserve.store.collections import DEFAULT_TENANT


class Anonymous:
    """Authenticator, principal and limiter in one."""

    tenant = DEFAULT_TENANT
    headers = b""

    def try_known(self, _authorization: bytes | None, _address: str, _now: float) -> Anonymous:
        """Return the only one there is."""
        return self

    def try_take(
        self, _principal: Principal, _address: str, _route_class: str, _now: float
    ) -> Anonymous:
        """Let it pass."""
        return self
