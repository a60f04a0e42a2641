"""Kept answers: forgotten on demand, everywhere."""

from __future__ import annotations

from aiohttp import web

from ragserve.handlers.body import json_response
from ragserve.handlers.services import SERVICES
from ragserve.schema import CacheCleared
from ragserve.store.collections import DEFAULT_TENANT, raise_versions


async def clear(request: web.Request) -> web.Response:
    """Put all kept answers out of reach, of one collection or of all, for every worker and host.

    The collections get new versions: no answer under an old one can be found any more.
    """
    services = request.app[SERVICES]
    name = request.query.get("collection")
    raised = await raise_versions(services.database, DEFAULT_TENANT, name)
    for collection in raised:
        services.catalog.doubt(collection)
        services.answers.forget(DEFAULT_TENANT, collection.id)
    return json_response(CacheCleared([collection.name for collection in raised]))
