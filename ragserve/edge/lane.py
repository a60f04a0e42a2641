"""What the express lane answers: questions whose answer is in memory, ``/health`` and ``/ready``.

It also refuses: while the server is at its limit a question whose answer is not in memory gets its
503 here, before anything is spent on it.

An answer from here is the one that aiohttp would have given, but for ``Server-Timing``: the same
credentials are checked, the same bucket is drawn from, the same metrics are counted. Whatever is
not certain at once is passed on: an unknown credential, an empty bucket, a question not in memory,
a header that could change the answer. Nothing here waits.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import msgspec
import structlog

from ragserve.cache.prepared import Prepared, assemble, prepare
from ragserve.config import LogConfig
from ragserve.edge.address import Proxies
from ragserve.edge.express import Memo, Plain
from ragserve.edge.request_id import REQUEST_IDS
from ragserve.edge.tally import Tally
from ragserve.errors import Overloaded
from ragserve.flow.admission import overloaded
from ragserve.flow.principal import Principal, credential_of
from ragserve.handlers.failure import describe

log = structlog.get_logger("ragserve.access")

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


class Limiter(Protocol):
    """Counts requests."""

    def try_take(
        self, principal: Principal, address: str, route_class: str, now: float, /
    ) -> Decision | None:
        """Count a request; None, and nothing counted, if it may not pass at once."""


class Answers(Protocol):
    """The first cache tier."""

    def try_prepared(self, tenant: str, path: bytes, body: bytes, now: float) -> Prepared | None:
        """Return the answer to exactly this body, if it is in memory and still true."""


class Entrance(Protocol):
    """Knows whether the server is at its limit."""

    def refusal(self, tenant: str, now: float, /) -> float:
        """Return after how many seconds a tenant's question may come back; 0: it may begin."""


class Questions(NamedTuple):
    """What questions need. ``classes``: path to its class of the limiter, and to its entrance."""

    classes: Mapping[str, tuple[str, Entrance]]
    answers: Answers
    authenticator: Authenticator
    limiter: Limiter


Page = Callable[[float], Prepared | None]
"""Gives the answer at a time, if it is the same for everybody."""


class Route(NamedTuple):
    """A route of the lane: a page, which nobody wants in a log, or a question of a class."""

    method: bytes
    path: bytes
    tally: Tally
    page: Page | None = None
    route_class: str = ""
    entrance: Entrance | None = None
    refused: Tally | None = None


class Ticket(NamedTuple):
    """A head that the lane may answer: its request is ``total`` bytes long."""

    plain: Plain
    route: Route
    total: int
    credential: bytes | None = None


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
            self._routes[path.encode()] = Route(
                b"GET", path.encode(), Tally(path, "GET", 200, express=True), page
            )
        if questions is not None:
            for path, (kind, entrance) in questions.classes.items():
                self._routes[path.encode()] = Route(
                    b"POST",
                    path.encode(),
                    Tally(path, "POST", 200, express=True),
                    route_class=kind,
                    entrance=entrance,
                    refused=Tally(path, "POST", Overloaded.status, express=True),
                )
            self._try_known = questions.authenticator.try_known
            self._try_prepared = questions.answers.try_prepared
            self._try_take = questions.limiter.try_take
        self._sample = config.access_sample if config.access else 0
        self._until_log = self._sample

    def ticket(self, plain: Plain) -> Ticket | None:
        """Return a ticket for ``plain`` unless something in it may call for another answer."""
        route = self._routes.get(plain.target)
        if route is None or route.method != plain.method or plain.origin is not None:
            return None
        if plain.cache_control is not None or plain.pragma is not None:
            return None
        if route.page is not None:
            return Ticket(plain, route, plain.size) if plain.length == 0 else None
        if plain.length == 0 or (plain.content_type or b"").lower() not in JSON_TYPES:
            return None
        if b"event-stream" in (plain.accept or b"").lower():
            return None
        credential = credential_of(plain.authorization)
        return Ticket(plain, route, plain.size + plain.length, credential)

    def answer(self, ticket: Ticket, body: bytes, address: str, now: float) -> bytes | None:
        """Return the bytes of the answer to ``body``, or None: pass the request on.

        ``now`` is monotonic seconds when the request came.
        """
        if not self._is_open():
            return None
        plain, route, _, credential = ticket
        limits = b""
        if route.page is not None:
            prepared = route.page(now)
            if prepared is None:
                return None
        else:
            if plain.forwarded_for is not None:
                address = self._proxies.client(address, plain.forwarded_for.decode("latin-1"))
            principal = self._try_known(credential, address, now)
            if (
                principal is None
                or principal.collections is not None
                or "query" not in principal.scopes
            ):
                return None
            prepared = self._try_prepared(principal.tenant, route.path, body, now)
            if prepared is None:
                return self._try_refuse(ticket, principal, address, now)
            # Last, for what is passed on draws from the bucket there.
            decision = self._try_take(principal, address, route.route_class, now)
            if decision is None:
                return None
            limits = decision.headers
        request_id = REQUEST_IDS.encoded(plain.request_id)
        answer = assemble(prepared, limits, request_id, now)
        route.tally.count(time.monotonic() - now)
        if self._sample and route.page is None:
            self._until_log -= 1
            if self._until_log <= 0:
                self._log(route, request_id, address, now)
        return answer

    def _try_refuse(
        self, ticket: Ticket, principal: Principal, address: str, now: float
    ) -> bytes | None:
        """Return a 503 if the server is at its limit."""
        plain, route, _, _ = ticket
        if route.entrance is None or route.refused is None:
            return None
        retry_after_s = route.entrance.refusal(principal.tenant, now)
        if not retry_after_s:
            return None
        decision = self._try_take(principal, address, route.route_class, now)
        if decision is None:
            return None
        request_id = REQUEST_IDS.encoded(plain.request_id)
        head, body = _refusal(math.ceil(retry_after_s), len(request_id))
        refusal = Prepared(head, body.replace(b"?" * len(request_id), request_id))
        route.refused.count(time.monotonic() - now)
        return assemble(refusal, decision.headers, request_id, now)

    def _log(self, route: Route, request_id: bytes, address: str, now: float) -> None:
        """Log one answer for ``log.access_sample`` of them."""
        self._until_log = self._sample
        log.info(
            "request",
            request_id=request_id.decode("ascii"),
            method=route.method.decode(),
            path=route.path.decode(),
            status=200,
            ms=round((time.monotonic() - now) * 1000, 2),
            remote=address,
            sample=self._sample,
        )

    def __repr__(self) -> str:
        return f"<Lane {'open' if self._is_open() else 'closed'}, {len(self.tickets)} heads known>"


@functools.lru_cache(maxsize=1000)
def _refusal(retry_after_s: int, id_length: int) -> tuple[bytes, bytes]:
    """Return head and body of a refusal, question marks where the request's id belongs."""
    error = overloaded(retry_after_s)
    body = msgspec.json.encode(describe(error, "?" * id_length))
    headers = {"Content-Type": "application/json", "Retry-After": str(retry_after_s)}
    prepared = prepare(error.status, headers, body)
    return prepared.head, body
