"""``/openapi.json``, generated from the routes and the types of their bodies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from inspect import getdoc
from typing import Any

import msgspec
from aiohttp import web

from ragserve import __version__
from ragserve.handlers.routes import ROUTES, Route
from ragserve.schema import ErrorResponse

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


async def openapi(_request: web.Request) -> web.Response:
    """Describe the API in OpenAPI 3.1."""
    return web.Response(body=_document(), content_type="application/json")


@lru_cache(1)
def _document() -> bytes:
    return msgspec.json.encode(describe(ROUTES))


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of ``routes``."""
    kinds = {ErrorResponse}
    for route in routes:
        kinds.update(_one_of(route.request), _one_of(route.response))
    listed = sorted(kinds, key=lambda kind: str(kind.__name__))
    schemas, components = msgspec.json.schema_components(
        listed, ref_template="#/components/schemas/{name}"
    )
    by_kind = dict(zip(listed, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ragserve", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    error = {"description": "An error.", "content": _json([schemas[ErrorResponse]])}
    operation: dict[str, Any] = {
        "summary": (getdoc(route.handler) or "").partition("\n")[0],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PATH_PARAMETER.findall(route.path)
        ]
        + [
            {
                "name": parameter.name,
                "in": "query",
                "description": parameter.text,
                "schema": {"type": parameter.kind},
            }
            for parameter in route.parameters
        ],
        "responses": {
            str(route.status): {
                "description": "Success.",
                "content": _json([schemas[kind] for kind in _one_of(route.response)]),
            },
            "default": error,
        },
    }
    if route.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": _json([schemas[kind] for kind in _one_of(route.request)]),
        }
    return operation


def _one_of(kinds: Any) -> tuple[Any, ...]:
    if kinds is None:
        return ()
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _json(schemas: list[Any]) -> dict[str, Any]:
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"application/json": {"schema": schema}}
