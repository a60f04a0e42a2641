"""Keys of the asking key's tenant: make, list, rotate, revoke."""

from __future__ import annotations

import msgspec
from aiohttp import web

from ragserve.handlers.audit import note
from ragserve.handlers.body import json_response, read_json
from ragserve.handlers.services import PRINCIPAL, SERVICES
from ragserve.schema import (
    Deleted,
    KeyLimits,
    KeyList,
    KeyRequest,
    KeyResponse,
    NewKey,
    RotateRequest,
)
from ragserve.store.keys import Key, create_key, limit_key, list_keys, revoke_key, rotate_key


async def create(request: web.Request) -> web.Response:
    """Make a key; its token is shown this once."""
    wanted = await read_json(request, KeyRequest)
    key, token = await create_key(
        request.app[SERVICES].database,
        tenant=request[PRINCIPAL].tenant,
        name=wanted.name,
        scopes=wanted.scopes,
        collections=wanted.collections,
        expires_at=wanted.expires_at,
        limits=wanted.limits,
    )
    _note("key_created", request, key, scopes=key.scopes)
    return json_response(NewKey(_response(key), token), status=201)


async def listing(request: web.Request) -> web.Response:
    """List the keys, without their secrets."""
    keys = await list_keys(request.app[SERVICES].database, request[PRINCIPAL].tenant)
    return json_response(KeyList([_response(key) for key in keys]))


async def rotate(request: web.Request) -> web.Response:
    """Make a key like this one, which stays valid for a while."""
    wanted = await read_json(request, RotateRequest)
    key, token = await rotate_key(
        request.app[SERVICES].database,
        request.match_info["id"],
        grace_s=wanted.grace_s,
        tenant=request[PRINCIPAL].tenant,
    )
    _note("key_rotated", request, key, replaces=request.match_info["id"])
    return json_response(NewKey(_response(key), token), status=201)


async def limit(request: web.Request) -> web.Response:
    """Give a key these limits; what is not named is as for everybody, from now on."""
    limits = await read_json(request, KeyLimits)
    database = request.app[SERVICES].database
    key = await limit_key(database, request.match_info["id"], limits, request[PRINCIPAL].tenant)
    _note("key_limited", request, key, limits=msgspec.to_builtins(limits))
    return json_response(_response(key))


async def revoke(request: web.Request) -> web.Response:
    """End a key; within a second no worker and no host takes it any more."""
    database = request.app[SERVICES].database
    key = await revoke_key(database, request.match_info["id"], request[PRINCIPAL].tenant)
    _note("key_revoked", request, key)
    return json_response(Deleted(key.id))


def _response(key: Key) -> KeyResponse:
    return KeyResponse(
        key.id,
        key.tenant,
        key.name,
        key.scopes,
        key.collections,
        key.created_at,
        key.expires_at,
        key.revoked_at,
        key.limits,
    )


def _note(event: str, request: web.Request, key: Key, **more: object) -> None:
    # The notification will come, but whoever made the change may ask sooner.
    request.app[SERVICES].keyring.changed(key.id)
    note(event, request, key=key.id, **more)
