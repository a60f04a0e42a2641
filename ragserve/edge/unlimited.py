"""No limits: every request may pass."""

from __future__ import annotations

from ragserve.flow.principal import Principal


class Unlimited:
    """Limiter and decision in one."""

    headers = b""

    def try_take(
        self, _principal: Principal, _address: str, _route_class: str, _now: float
    ) -> Unlimited:
        """Let it pass."""
        return self
