"""How often a client may ask: token buckets for each key (or address) and class of route.

With Redis the buckets are those of all workers and hosts: a worker takes a few tokens at a time
and gives out of its hand, without asking. Without, or while it is away, each worker has a bucket of
its own with its share of the rate. Redis failing never fails a request.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from ragserve.config import RateConfig
from ragserve.edge.address import ADDRESS, identity_of
from ragserve.edge.auth import SCOPE
from ragserve.errors import TooManyRequests, Unavailable
from ragserve.flow.bucket import Buckets, Decision, Rate
from ragserve.flow.principal import Principal
from ragserve.handlers import DECISION, PRINCIPAL
from ragserve.metrics import RATE_LIMITED
from ragserve.store.shares import Shares

IDENTITIES = 100_000
"""Per class; who asked longest ago is forgotten, and starts with a full bucket of its worker's."""
DECISIONS = 10_000
"""Heads are the same for the same number of tokens left."""
LEASE_S = 0.1
"""A lease is what comes in this time, shared among the host's workers, or a single token."""


class Hand:
    """Tokens that a worker has taken for an identity, and what was left in Redis then."""

    __slots__ = ("left", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.left = 0


class Rule:
    """A class of routes and its limit, ``per_minute`` requests for each identity."""

    def __init__(self, name: str, per_minute: int, workers: int) -> None:
        self.name = name
        self.rate = Rate.per_minute(per_minute)
        self.lease = max(1, round(per_minute / 60 * LEASE_S / workers))
        self.local = Buckets(Rate.per_minute(per_minute / workers), IDENTITIES)
        self.hands: dict[str, Hand] = {}
        self.asking: dict[str, asyncio.Task[float]] = {}
        self._per_minute = per_minute
        self._decisions: dict[int, Decision] = {}
        self._policy = f'"{name}";q={per_minute};w=60'

    def decision(self, left: float) -> Decision:
        """Return that a request may pass while so many tokens are left."""
        whole = max(0, int(left))
        known = self._decisions.get(whole)
        if known is not None:
            return known
        if len(self._decisions) >= DECISIONS:
            self._decisions.clear()
        reset_s = math.ceil((self._per_minute - whole) * self.rate.interval_s)
        fields = (
            ("RateLimit-Policy", self._policy),
            ("RateLimit", f'"{self.name}";r={whole};t={reset_s}'),
            ("x-ratelimit-limit-requests", str(self._per_minute)),
            ("x-ratelimit-remaining-requests", str(whole)),
            ("x-ratelimit-reset-requests", f"{reset_s}s"),
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        decision = self._decisions[whole] = Decision(fields, lines.encode())
        return decision

    def refusal(self, wait_s: float) -> TooManyRequests:
        """Return the error for a request that may not pass."""
        RATE_LIMITED.labels(self.name).inc()
        return TooManyRequests(
            f"{self.name}: {self._per_minute} requests a minute are allowed;"
            f" try again in {wait_s:.1f} s",
            retry_after_s=wait_s,
        )


_FREE = Decision()


class RateLimiter:
    """The limits of a worker, one of ``workers`` on its host."""

    def __init__(self, config: RateConfig, workers: int, shares: Shares | None) -> None:
        limits = {
            "query": config.query_per_minute,
            "search": config.search_per_minute,
            "ingest": config.ingest_per_minute,
            "admin": config.admin_per_minute,
        }
        self._shares = shares
        self._rules = {
            name: Rule(name, limit, workers) for name, limit in limits.items() if limit > 0
        }

    def try_take(
        self, principal: Principal, address: str, route_class: str, now: float
    ) -> Decision | None:
        """Count a request; None, and nothing counted, if it may not pass without waiting."""
        rule = self._rules.get(route_class)
        if rule is None:
            return _FREE
        identity = principal.id or identity_of(address)
        if self._shares is None or not self._shares.reachable:
            left = rule.local.try_take(identity, now)
            return None if left < 0 else rule.decision(left)
        hand = rule.hands.get(identity)
        if hand is None or hand.tokens == 0:
            return None
        hand.tokens -= 1
        return rule.decision(hand.left + hand.tokens)

    async def take(
        self, principal: Principal, address: str, route_class: str, now: float
    ) -> Decision:
        """Count a request; raise ``TooManyRequests`` if it may not pass."""
        decision = self.try_take(principal, address, route_class, now)
        if decision is not None:
            return decision
        rule = self._rules[route_class]
        identity = principal.id or identity_of(address)
        while self._shares is not None and self._shares.reachable:
            asking = rule.asking.get(identity)
            if asking is None:
                asking = asyncio.create_task(self._fill(rule, identity, self._shares))
                rule.asking[identity] = asking
            try:
                # Whoever leaves must not take the others' tokens along.
                wait_s = await asyncio.shield(asking)
            except Unavailable:
                break
            decision = self.try_take(principal, address, route_class, now)
            if decision is not None:
                return decision
            if wait_s > 0:
                raise rule.refusal(wait_s)
        wait_s = rule.local.take(identity, now)
        if wait_s > 0:
            raise rule.refusal(wait_s)
        return rule.decision(rule.local.left(identity, now))

    async def close(self) -> None:
        """Give back what is in hand: another worker may need it."""
        shares = self._shares
        if shares is None:
            return
        returned = [
            shares.take(identity, rule.rate, -hand.tokens)
            for rule in self._rules.values()
            for identity, hand in rule.hands.items()
            if hand.tokens
        ]
        await asyncio.gather(*returned, return_exceptions=True)

    async def _fill(self, rule: Rule, identity: str, shares: Shares) -> float:
        """Take a hand of tokens; return how long to wait if there is none."""
        try:
            lease = await shares.take(identity, rule.rate, rule.lease)
        finally:
            del rule.asking[identity]
        hand = rule.hands.pop(identity, None) or Hand()
        rule.hands[identity] = hand
        hand.tokens += lease.tokens
        hand.left = lease.left
        if len(rule.hands) > IDENTITIES:
            del rule.hands[next(iter(rule.hands))]
        return lease.wait_s


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
LIMITER = web.AppKey("limiter", RateLimiter)
_CLASSES = {"/v1/query": "query", "/v1/chat/completions": "query"}
_BY_SCOPE = {"query": "search", "ingest": "ingest", "admin": "admin"}


@web.middleware
async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, unless the route is for everybody."""
    principal = request.get(PRINCIPAL)
    if principal is not None:
        limiter = request.app[LIMITER]
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else ""
        route_class = _CLASSES.get(path) or _BY_SCOPE[request[SCOPE]]
        now = time.monotonic()
        decision = limiter.try_take(principal, request[ADDRESS], route_class, now)
        if decision is None:
            decision = await limiter.take(principal, request[ADDRESS], route_class, now)
        request[DECISION] = decision
    return await handler(request)


async def tell(request: web.Request, response: web.StreamResponse) -> None:
    """Say in each answer's head, be it a stream's, what is left (aiohttp's on_response_prepare)."""
    decision = request.get(DECISION)
    if decision is not None:
        response.headers.update(decision.fields)
