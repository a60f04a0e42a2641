"""Kept answers: forgotten on demand, everywhere."""

from __future__ import annotations

from aiohttp import web

from ragserve.errors import Forbidden
from ragserve.handlers.audit import note
from ragserve.handlers.body import json_response
from ragserve.handlers.services import PRINCIPAL, SERVICES
from ragserve.schema import CacheCleared
from ragserve.store.collections import raise_versions


async def clear(request: web.Request) -> web.Response:
    """Put all kept answers out of reach, of one collection or of all, for every worker and host.

    The collections get new versions: no answer under an old one can be found any more.
    """
    services = request.app[SERVICES]
    principal = request[PRINCIPAL]
    name = request.query.get("collection")
    if name is not None:
        principal.check_collection(name)
    elif principal.collections is not None:
        raise Forbidden(f"key {principal.id} is for some collections only: name one of them")
    raised = await raise_versions(services.database, principal.tenant, name)
    for collection in raised:
        services.catalog.doubt(collection)
        services.answers.forget(principal.tenant, collection.id)
    names = [collection.name for collection in raised]
    note("cache_cleared", request, collections=names)
    return json_response(CacheCleared(names))
