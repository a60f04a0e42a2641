"""What ``model`` may name: the collections, the language model, the embedder."""

from __future__ import annotations

import time

from aiohttp import web

from ragserve.errors import UnknownModel
from ragserve.flow.principal import Principal
from ragserve.handlers.body import json_response
from ragserve.handlers.chat import RAG
from ragserve.handlers.collections import visible_collections
from ragserve.handlers.services import PRINCIPAL, SERVICES, Services
from ragserve.openai import Model, ModelList


async def listing(request: web.Request) -> web.Response:
    """List the models."""
    return json_response(ModelList(await _models(request.app[SERVICES], request[PRINCIPAL])))


async def describe(request: web.Request) -> web.Response:
    """Describe a model."""
    name = request.match_info["name"]
    for model in await _models(request.app[SERVICES], request[PRINCIPAL]):
        if model.id == name:
            return json_response(model)
    raise UnknownModel(f"model {name!r} does not exist; GET /v1/models lists them")


async def _models(services: Services, principal: Principal) -> list[Model]:
    started = int(time.time() - (time.monotonic() - services.started_at))
    collections = await visible_collections(services, principal)
    names = [RAG, *(f"{RAG}:{collection.name}" for collection in collections)]
    if services.model is not None:
        names.extend(services.model.names)
    names.append(services.embedder.name)
    return [Model(name, started) for name in names]
