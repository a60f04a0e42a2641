"""Whose request is it, and may they: 401 without a valid key, 403 for what the key is not for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from ragserve.edge.address import ADDRESS, PROXIES
from ragserve.errors import Forbidden
from ragserve.handlers import PRINCIPAL, ROUTES, SERVICES
from ragserve.schema import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger("ragserve.audit")

_SCOPES: dict[object, Scope] = {
    route.handler: route.scope for route in ROUTES if route.scope is not None
}
"""What is not here is for everybody: probes, metrics, the description of the API."""


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks, unless the route is for everybody."""
    scope = _SCOPES.get(request.match_info.handler)
    if scope is not None:
        headers = request.headers
        address = request.remote or ""
        if "X-Forwarded-For" in headers:
            told = ",".join(headers.getall("X-Forwarded-For"))
            address = request.app[PROXIES].client(address, told)
        request[ADDRESS] = address
        keyring = request.app[SERVICES].keyring
        authorization = headers.get("Authorization")
        principal = keyring.try_authenticate(authorization, address)
        if principal is None:
            principal = await keyring.authenticate(authorization, address)
        try:
            principal.require(scope)
        except Forbidden:
            log.warning(
                "scope_refused",
                remote=address,
                key=principal.id,
                tenant=principal.tenant,
                scope=scope,
            )
            raise
        request[PRINCIPAL] = principal
    return await handler(request)
