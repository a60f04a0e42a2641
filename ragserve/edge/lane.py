"""What the express lane answers: questions whose answer is in memory, ``/health`` and ``/ready``.

It also refuses, before anything is spent on a request: 429 to whoever is known to be over a limit,
whatever is asked, and 503 while the server is at its own limit to a question whose answer is not in
memory.

An answer from here is the one that aiohttp would have given, but for ``Server-Timing``: the same
credentials are checked, the same bucket is drawn from, the same metrics are counted. Whatever is
not certain at once is passed on: an unknown credential, a bucket of which only Redis knows, a
question not in memory, a header that could change the answer. Nothing here waits.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec
import structlog

from ragserve.cache.prepared import Prepared, assemble, prepare
from ragserve.config import LogConfig
from ragserve.edge.address import Proxies
from ragserve.edge.express import Memo, Plain
from ragserve.edge.request_id import REQUEST_IDS
from ragserve.edge.tally import Tally
from ragserve.errors import Overloaded, RagserveError, TooManyRequests
from ragserve.flow.admission import overloaded
from ragserve.flow.bounded import Bounded
from ragserve.flow.principal import Principal, credential_of
from ragserve.handlers.failure import describe

log = structlog.get_logger("ragserve.access")

OVER_LIMIT = 10_000
"""So many who were over a limit when they last asked are remembered."""
JSON_TYPES = frozenset(
    {b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"}
)


NO_PROXIES = Proxies("")


class Authenticator(Protocol):
    """Knows credentials that were checked before."""

    def try_known(self, credential: bytes | None, address: str, now: float, /) -> Principal | None:
        """Return whose credential it is, None if that takes waiting or an error."""


class Decision(Protocol):
    """A request that may pass."""

    @property
    def headers(self) -> bytes:
        """Return the ``RateLimit`` header lines."""


class Limited(Protocol):
    """Why a request cannot pass. ``decision`` says how little is left."""

    @property
    def message(self) -> str:
        """Return what the client is told."""

    @property
    def retry_after_s(self) -> float | None:
        """Return when to come back."""

    @property
    def decision(self) -> Decision:
        """Return the header lines of the refusal."""


class Limiter(Protocol):
    """Counts requests."""

    def try_take(
        self, principal: Principal, address: str, route_class: str, now: float, /
    ) -> Decision | None:
        """Count a request; None, and nothing counted, if it may not pass at once."""

    def try_refuse(
        self, principal: Principal, address: str, route_class: str, now: float, /
    ) -> Limited | None:
        """Return why a request cannot pass, which is counted; None if it may, or who knows."""

    def give_back(self, principal: Principal, address: str, route_class: str, /) -> None:
        """Uncount a request."""


class Answers(Protocol):
    """The first cache tier."""

    def try_prepared(self, tenant: str, path: bytes, body: bytes, now: float) -> Prepared | None:
        """Return the answer to exactly this body, if it is in memory and still true."""


class Entrance(Protocol):
    """Knows whether the server is at its limit."""

    def refusal(self, tenant: str, now: float, /) -> float:
        """Return after how many seconds a tenant's question may come back; 0: it may begin."""

    def let_in(self, tenant: str, now: float, /) -> None:
        """Take note that it begins."""


class Questions(NamedTuple):
    """What questions need.

    ``classes``: path to its class of the limiter, and to its entrance. ``others``: path to class of
    what is asked with the same scope, and is refused here but not answered.
    """

    classes: Mapping[str, tuple[str, Entrance]]
    answers: Answers
    authenticator: Authenticator
    limiter: Limiter
    others: Mapping[str, str] = MappingProxyType({})


Page = Callable[[float], Prepared | None]
"""Gives the answer at a time, if it is the same for everybody."""


class Route(NamedTuple):
    """A route of the lane: a page, which nobody wants in a log, or a question of a class.

    ``tallies`` has one for each status. Without an entrance the lane knows no answers.
    """

    method: bytes
    path: bytes
    tallies: Mapping[int, Tally]
    page: Page | None = None
    route_class: str = ""
    entrance: Entrance | None = None


class Ticket(NamedTuple):
    """A head that the lane may answer: its request is ``total`` bytes long.

    Unless it is ``plainly`` a question, something in it may call for another answer than the one in
    memory: it can only be over a limit.
    """

    plain: Plain
    route: Route
    total: int
    credential: bytes | None = None
    plainly: bool = True


class Refusal(NamedTuple):
    """A refusal's bytes, around the request's id in its body."""

    status: int
    head: bytes
    before: bytes
    after: bytes


class Lane:
    """Answers plain requests at once, or not at all; not before ``is_open`` says so."""

    def __init__(
        self,
        config: LogConfig,
        is_open: Callable[[], bool],
        pages: dict[str, Page],
        questions: Questions | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self.tickets: Memo[Ticket] = Memo()
        self._is_open = is_open
        self._proxies = proxies
        self._routes: dict[bytes, Route] = {}
        for path, page in pages.items():
            self._add("GET", path, (200,), page=page)
        if questions is not None:
            limited = TooManyRequests.status
            for path, (kind, entrance) in questions.classes.items():
                statuses = (200, Overloaded.status, limited)
                self._add("POST", path, statuses, route_class=kind, entrance=entrance)
            for path, kind in questions.others.items():
                self._add("POST", path, (limited,), route_class=kind)
            self._try_known = questions.authenticator.try_known
            self._try_prepared = questions.answers.try_prepared
            self._try_take = questions.limiter.try_take
            self._try_refuse = questions.limiter.try_refuse
            self._give_back = questions.limiter.give_back
        self._over_limit: Bounded[tuple[str, str, str], None] = Bounded(OVER_LIMIT)
        self._sample = config.access_sample if config.access else 0
        self._until_log = self._sample

    def _add(
        self,
        method: str,
        path: str,
        statuses: Iterable[int],
        *,
        page: Page | None = None,
        route_class: str = "",
        entrance: Entrance | None = None,
    ) -> None:
        tallies = {status: Tally(path, method, status, express=True) for status in statuses}
        self._routes[path.encode()] = Route(
            method.encode(), path.encode(), tallies, page, route_class, entrance
        )

    def ticket(self, plain: Plain) -> Ticket | None:
        """Return a ticket for ``plain``, unless no answer to it can be the lane's."""
        route = self._routes.get(plain.target)
        if route is None or route.method != plain.method or plain.origin is not None:
            return None
        plainly = plain.cache_control is None and plain.pragma is None
        if route.page is not None:
            return Ticket(plain, route, plain.size) if plainly and plain.length == 0 else None
        plainly = (
            plainly
            and route.entrance is not None
            and plain.length > 0
            and (plain.content_type or b"").lower() in JSON_TYPES
            and b"event-stream" not in (plain.accept or b"").lower()
        )
        credential = credential_of(plain.authorization)
        return Ticket(plain, route, plain.size + plain.length, credential, plainly)

    def answer(self, ticket: Ticket, body: bytes, address: str, now: float) -> bytes | None:
        """Return the bytes of the answer to ``body``, or None: pass the request on.

        ``now`` is monotonic seconds when the request came.
        """
        if not self._is_open():
            return None
        plain, route, _, credential, plainly = ticket
        limits = b""
        if route.page is not None:
            prepared = route.page(now)
            if prepared is None:
                return None
        else:
            if plain.forwarded_for is not None:
                address = self._proxies.client(address, plain.forwarded_for.decode("latin-1"))
            principal = self._try_known(credential, address, now)
            if principal is None or "query" not in principal.scopes:
                return None
            if self._over_limit and _who(principal, address, route) in self._over_limit:
                # Most likely still so: in a flood this spares the look for an answer.
                refusal = self._try_limit(ticket, principal, address, now)
                if refusal is not None:
                    return refusal
                del self._over_limit[_who(principal, address, route)]
            plainly = plainly and principal.collections is None
            prepared = (
                self._try_prepared(principal.tenant, route.path, body, now) if plainly else None
            )
            if prepared is None:
                if plainly:
                    return self._try_shed(ticket, principal, address, now)
                return self._try_limit(ticket, principal, address, now)
            # Last, for what is passed on draws from the bucket there.
            decision = self._try_take(principal, address, route.route_class, now)
            if decision is None:
                return self._try_limit(ticket, principal, address, now)
            limits = decision.headers
        request_id = REQUEST_IDS.encoded(plain.request_id)
        answer = assemble(prepared, limits, request_id, now)
        route.tallies[200].count(time.monotonic() - now)
        if self._sample and route.page is None:
            self._log(route, 200, request_id, address, now)
        return answer

    def _try_limit(
        self, ticket: Ticket, principal: Principal, address: str, now: float
    ) -> bytes | None:
        """Return a 429 if a limit is known to be reached."""
        limited = self._try_refuse(principal, address, ticket.route.route_class, now)
        if limited is None:
            return None
        who = _who(principal, address, ticket.route)
        if who not in self._over_limit:  # in a flood it is
            self._over_limit[who] = None
        request_id = REQUEST_IDS.encoded(ticket.plain.request_id)
        retry_after_s = math.ceil(limited.retry_after_s or 0.0)
        refusal = _limited(limited.message, retry_after_s, len(request_id))
        return self._refuse(ticket.route, refusal, limited.decision, request_id, address, now)

    def _try_shed(
        self, ticket: Ticket, principal: Principal, address: str, now: float
    ) -> bytes | None:
        """Return a 429 if a limit is known to be reached, a 503 if the server is at its own."""
        route = ticket.route
        decision = self._try_take(principal, address, route.route_class, now)
        if decision is None or route.entrance is None:
            return self._try_limit(ticket, principal, address, now)
        retry_after_s = route.entrance.refusal(principal.tenant, now)
        if not retry_after_s:
            # What is passed on draws from the bucket there.
            self._give_back(principal, address, route.route_class)
            route.entrance.let_in(principal.tenant, now)
            return None
        request_id = REQUEST_IDS.encoded(ticket.plain.request_id)
        refusal = _overloaded(math.ceil(retry_after_s), len(request_id))
        return self._refuse(route, refusal, decision, request_id, address, now)

    def _refuse(
        self,
        route: Route,
        refusal: Refusal,
        decision: Decision,
        request_id: bytes,
        address: str,
        now: float,
    ) -> bytes:
        prepared = Prepared(refusal.head, b"".join((refusal.before, request_id, refusal.after)))
        answer = assemble(prepared, decision.headers, request_id, now)
        route.tallies[refusal.status].count(time.monotonic() - now)
        if self._sample:
            self._log(route, refusal.status, request_id, address, now)
        return answer

    def _log(self, route: Route, status: int, request_id: bytes, address: str, now: float) -> None:
        """Log one answer for ``log.access_sample`` of them."""
        self._until_log -= 1
        if self._until_log > 0:
            return
        self._until_log = self._sample
        log.info(
            "request",
            request_id=request_id.decode("ascii"),
            method=route.method.decode(),
            path=route.path.decode(),
            status=status,
            ms=round((time.monotonic() - now) * 1000, 2),
            remote=address,
            sample=self._sample,
        )

    def __repr__(self) -> str:
        return f"<Lane {'open' if self._is_open() else 'closed'}, {len(self.tickets)} heads known>"


def _who(principal: Principal, address: str, route: Route) -> tuple[str, str, str]:
    """Return what limits are counted by, and for whom."""
    return (principal.id, address, route.route_class)


@functools.lru_cache(maxsize=1000)
def _limited(message: str, retry_after_s: int, id_length: int) -> Refusal:
    return _refusal(TooManyRequests(message), retry_after_s, id_length)


@functools.lru_cache(maxsize=1000)
def _overloaded(retry_after_s: int, id_length: int) -> Refusal:
    return _refusal(overloaded(retry_after_s), retry_after_s, id_length)


def _refusal(error: RagserveError, retry_after_s: int, id_length: int) -> Refusal:
    """Return what refuses requests with ids of a length."""
    body = msgspec.json.encode(describe(error, "?" * id_length))
    headers = {"Content-Type": "application/json", "Retry-After": str(retry_after_s)}
    before, _, after = body.rpartition(b"?" * id_length)
    return Refusal(error.status, prepare(error.status, headers, body).head, before, after)
