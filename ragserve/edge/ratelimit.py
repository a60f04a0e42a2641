"""How often a client may ask: a middleware over token buckets.

A request draws from a bucket of its key (or its address, without a key), one of its tenant and one
of its address, in its class of routes, where there is a limit; it passes if all have a token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from ragserve.config import Config, RateConfig
from ragserve.edge.address import ADDRESS
from ragserve.edge.quota import Exhausted, Quota
from ragserve.edge.tokens import TokenQuota
from ragserve.flow.address import identity_of
from ragserve.flow.bounded import Bounded
from ragserve.flow.bucket import Decision
from ragserve.flow.principal import Principal
from ragserve.handlers import DECISION, MAY_SPEND, PRINCIPAL, ROUTES, SPEND
from ragserve.schema import KeyLimits
from ragserve.store.shares import Shares

Identify = Callable[[Principal, str], str]
FREE = Decision()
INFINITE = float("inf")
OWN_LIMITS = 1000
"""Different limits of keys; the one made first begins anew when there are more."""


def by_key(principal: Principal, address: str) -> str:
    """Return the key that asks, or the address without one."""
    return principal.id or identity_of(address)


def by_tenant(principal: Principal, _address: str) -> str:
    """Return whose key asks."""
    return principal.tenant


def by_address(_principal: Principal, address: str) -> str:
    """Return where the request is from, whatever its key."""
    return identity_of(address)


class RateLimiter:
    """The limits of a worker, one of ``workers`` that share them.

    A key's own limits stand in place of those of ``[rate]``.
    """

    def __init__(self, config: Config, workers: int, shares: Shares | None) -> None:
        self._workers = workers
        self._shares = shares
        kinds: tuple[tuple[str, RateConfig, Identify], ...] = (
            ("", config.rate, by_key),
            ("tenant-", config.tenant_rate, by_tenant),
            ("address-", config.address_rate, by_address),
        )
        self._limits: dict[str, list[tuple[Identify, Quota]]] = {}
        self._tokens: list[tuple[Identify, TokenQuota]] = []
        self._own: Bounded[tuple[str, int], Quota] = Bounded(OWN_LIMITS)
        self._own_tokens: Bounded[int, TokenQuota] = Bounded(OWN_LIMITS)
        self._with_own: Bounded[tuple[KeyLimits, str], list[tuple[Identify, Quota]]]
        self._with_own = Bounded(OWN_LIMITS)
        self._charging: set[asyncio.Task[None]] = set()
        for prefix, rates, identify in kinds:
            for name, per_minute in rates.classes.items():
                if per_minute > 0:
                    quota = Quota(f"{prefix}{name}", per_minute, workers, shares)
                    self._limits.setdefault(name, []).append((identify, quota))
            if rates.tokens_per_minute > 0:
                name, most = f"{prefix}tokens", rates.tokens_per_minute
                self._tokens.append((identify, TokenQuota(name, most, workers, shares)))

    def try_take(
        self, principal: Principal, address: str, route_class: str, now: float
    ) -> Decision | None:
        """Count a request; None, and nothing counted, if it may not pass without waiting."""
        limits = self._limits_of(principal, route_class)
        least = INFINITE
        decisive: Quota | None = None
        for identify, quota in limits:
            left = quota.try_take(identify(principal, address), now)
            if left < 0.0:
                for earlier, before in limits:
                    if before is quota:
                        return None
                    before.give_back(earlier(principal, address))
            if left < least:
                least, decisive = left, quota
        return FREE if decisive is None else decisive.decision(least)

    def try_refuse(
        self, principal: Principal, address: str, route_class: str, now: float
    ) -> Exhausted | None:
        """Return why a request cannot pass, whatever else may be asked; None if that is open."""
        for identify, quota in self._limits_of(principal, route_class):
            refusal = quota.try_refuse(identify(principal, address), now)
            if refusal is not None:
                return refusal
        return None

    def give_back(self, principal: Principal, address: str, route_class: str) -> None:
        """Return what a request has taken that was not answered."""
        for identify, quota in self._limits_of(principal, route_class):
            quota.give_back(identify(principal, address))

    async def take(
        self, principal: Principal, address: str, route_class: str, now: float
    ) -> Decision:
        """Count a request; raise ``Exhausted`` if it may not pass."""
        taken: list[tuple[float, Quota, str]] = []
        for identify, quota in self._limits_of(principal, route_class):
            identity = identify(principal, address)
            try:
                taken.append((await quota.take(identity, now), quota, identity))
            except Exhausted:
                for _, before, earlier in taken:
                    before.give_back(earlier)
                raise
        if not taken:
            return FREE
        least, decisive, _ = min(taken, key=lambda one: one[0])
        return decisive.decision(least)

    def check_tokens(self, principal: Principal, address: str, now: float) -> None:
        """Raise ``TooManyRequests`` if no tokens are left for an answer."""
        for identify, quota in self._tokens_of(principal):
            quota.check(identify(principal, address), now)

    def charge_soon(self, principal: Principal, address: str, tokens: int, now: float) -> None:
        """Count an answer's tokens, behind the answer."""
        if not tokens:
            return
        for identify, quota in self._tokens_of(principal):
            charge = quota.charge(identify(principal, address), tokens, now)
            task = asyncio.create_task(charge)
            self._charging.add(task)
            task.add_done_callback(self._charging.discard)

    async def close(self) -> None:
        """Give back what is in hand, and count what is still to be counted."""
        await asyncio.gather(*self._charging, return_exceptions=True)
        quotas = [quota for limits in self._limits.values() for _, quota in limits]
        await asyncio.gather(*(quota.close() for quota in (*quotas, *self._own.values())))

    def _limits_of(
        self, principal: Principal, route_class: str
    ) -> Sequence[tuple[Identify, Quota]]:
        """Return the limits of a class of routes."""
        if principal.limits is None:
            return self._limits.get(route_class, ())
        return self._limits_with(principal.limits, route_class)

    def _limits_with(self, own: KeyLimits, route_class: str) -> list[tuple[Identify, Quota]]:
        """Return the limits of a class of routes for a key with limits of its own."""
        limits = self._with_own.get((own, route_class))
        if limits is None:
            limits = self._limits.get(route_class, [])
            per_minute = own.of(route_class)
            if per_minute is not None:
                limits = [(by, quota) for by, quota in limits if by is not by_key]
                if per_minute > 0:
                    limits.insert(0, (by_key, self._own_quota(route_class, per_minute)))
            self._with_own[own, route_class] = limits
        return limits

    def _own_quota(self, name: str, per_minute: int) -> Quota:
        quota = self._own.get((name, per_minute))
        if quota is None:
            quota = self._own[name, per_minute] = Quota(
                name, per_minute, self._workers, self._shares
            )
        return quota

    def _tokens_of(self, principal: Principal) -> list[tuple[Identify, TokenQuota]]:
        """Return the limits of the language model's tokens for a key."""
        most = None if principal.limits is None else principal.limits.of("tokens")
        if most is None:
            return self._tokens
        limits = [(by, quota) for by, quota in self._tokens if by is not by_key]
        if most > 0:
            quota = self._own_tokens.get(most)
            if quota is None:
                quota = self._own_tokens[most] = TokenQuota(
                    "tokens", most, self._workers, self._shares
                )
            limits.insert(0, (by_key, quota))
        return limits

    def __repr__(self) -> str:
        return f"<RateLimiter {len(self._limits)} classes limited, {len(self._own)} limits of keys>"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LIMITER = web.AppKey("limiter", RateLimiter)
_QUESTIONS = frozenset({"/v1/query", "/v1/chat/completions"})
_BY_SCOPE = {"query": "search", "ingest": "ingest", "admin": "admin"}
_CLASSES: dict[object, str] = {
    route.handler: "query" if route.path in _QUESTIONS else _BY_SCOPE[route.scope]
    for route in ROUTES
    if route.scope is not None
}
"""What is not here is for everybody, any number of times."""


@web.middleware
async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, unless the route is for everybody."""
    route_class = _CLASSES.get(request.match_info.handler)
    if route_class is not None:
        limiter = request.app[LIMITER]
        principal, address = request[PRINCIPAL], request[ADDRESS]
        now = time.monotonic()
        decision = limiter.try_take(principal, address, route_class, now)
        if decision is None:
            try:
                decision = await limiter.take(principal, address, route_class, now)
            except Exhausted as error:
                request[DECISION] = error.decision
                raise
        request[DECISION] = decision
        if route_class == "query":
            # A kept answer takes none: whoever begins to compute one asks.
            request[MAY_SPEND] = lambda: limiter.check_tokens(principal, address, now)
            request[SPEND] = lambda tokens: limiter.charge_soon(
                principal, address, tokens, time.monotonic()
            )
    return await handler(request)


async def tell(request: web.Request, response: web.StreamResponse) -> None:
    """Say in each answer's head, be it a stream's, what is left (aiohttp's on_response_prepare)."""
    decision = request.get(DECISION)
    if decision is not None:
        response.headers.update(decision.fields)
