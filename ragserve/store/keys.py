"""Clients' keys: made, listed, revoked, rotated, found.

A token is ``rs_<id>_<secret>``. The id is public and names the key everywhere; the secret has 256
random bits, so that one round of SHA-256 keeps it (a slow hash protects what people choose).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ragserve.errors import InvalidRequest, NotFound
from ragserve.flow.principal import SCOPES, Principal
from ragserve.schema import NO_LIMITS, KeyLimits, Scope
from ragserve.store.collections import check_name
from ragserve.store.pool import Database

KEYS_CHANGED = "ragserve_keys"
"""The NOTIFY channel that carries a key's id at every change."""
PREFIX = "rs_"
ID_BYTES = 6
SECRET_BYTES = 32
NAME_CHARACTERS = 128
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_COLUMNS = (
    "id, tenant, name, scopes, collections, created_at, expires_at, revoked_at,"
    " limits::text AS limits"
)
_NO_HASH = bytes(32)


class Key(msgspec.Struct, frozen=True):
    """A key as it is stored, without its secret."""

    id: str
    tenant: str
    name: str
    scopes: list[Scope]
    collections: list[str] | None
    created_at: dt.datetime
    expires_at: dt.datetime | None = None
    revoked_at: dt.datetime | None = None
    limits: KeyLimits = NO_LIMITS

    @property
    def principal(self) -> Principal:
        """What the key allows."""
        return Principal(
            self.id,
            self.tenant,
            frozenset(self.scopes),
            None if self.collections is None else frozenset(self.collections),
            float("inf") if self.expires_at is None else self.expires_at.timestamp(),
            None if self.limits == NO_LIMITS else self.limits,
        )


async def create_key(
    database: Database,
    *,
    tenant: str,
    name: str,
    scopes: Sequence[Scope],
    collections: Sequence[str] | None = None,
    expires_at: dt.datetime | None = None,
    limits: KeyLimits = NO_LIMITS,
) -> tuple[Key, str]:
    """Store a new key; return it with its token, which cannot be had again."""
    _check(tenant, name, scopes, collections, expires_at)
    key_id = secrets.token_hex(ID_BYTES)
    token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    row = await database.fetchrow(
        "INSERT INTO keys (id, tenant, name, hash, scopes, collections, expires_at, limits)"
        f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb) RETURNING {_COLUMNS}",
        key_id,
        tenant,
        name,
        _hash(token),
        list(scopes),
        None if collections is None else list(collections),
        expires_at,
        _to_json(limits),
    )
    assert row is not None  # noqa: S101 - INSERT … RETURNING
    return _key(row), token


async def list_keys(database: Database, tenant: str | None = None) -> list[Key]:
    """Return a tenant's keys, or everybody's, oldest first."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM keys WHERE $1::text IS NULL OR tenant = $1 ORDER BY created_at",
        tenant,
    )
    return [_key(row) for row in rows]


async def limit_key(
    database: Database, key_id: str, limits: KeyLimits, tenant: str | None = None
) -> Key:
    """Give a key these limits in place of those it had; raise ``NotFound``."""
    row = await database.fetchrow(
        "UPDATE keys SET limits = $3::jsonb WHERE id = $1 AND ($2::text IS NULL OR tenant = $2)"
        f" AND revoked_at IS NULL RETURNING {_COLUMNS}",
        _storable(key_id),
        tenant,
        _to_json(limits),
    )
    if row is None:
        raise NotFound(f"key {key_id!r} does not exist or is revoked")
    return _key(row)


async def revoke_key(database: Database, key_id: str, tenant: str | None = None) -> Key:
    """End a key at once; raise ``NotFound``. To revoke one again changes nothing."""
    row = await database.fetchrow(
        "UPDATE keys SET revoked_at = coalesce(revoked_at, now())"
        f" WHERE id = $1 AND ($2::text IS NULL OR tenant = $2) RETURNING {_COLUMNS}",
        _storable(key_id),
        tenant,
    )
    if row is None:
        raise NotFound(f"key {key_id!r} does not exist")
    return _key(row)


async def rotate_key(
    database: Database, key_id: str, *, grace_s: float, tenant: str | None = None
) -> tuple[Key, str]:
    """Return a new key like this one, which ends after ``grace_s`` at the latest."""
    row = await database.fetchrow(
        "UPDATE keys SET expires_at = least(expires_at, now() + make_interval(secs => $2))"
        " WHERE id = $1 AND ($3::text IS NULL OR tenant = $3) AND revoked_at IS NULL"
        " AND (expires_at IS NULL OR expires_at > now())"
        f" RETURNING {_COLUMNS}, (SELECT expires_at FROM keys WHERE id = $1) AS before",
        _storable(key_id),
        grace_s,
        tenant,
    )
    if row is None:
        raise NotFound(f"key {key_id!r} does not exist or is valid no more")
    fields = dict(row)
    before = fields.pop("before")
    old = _key(fields)
    return await create_key(
        database,
        tenant=old.tenant,
        name=old.name,
        scopes=old.scopes,
        collections=old.collections,
        expires_at=before,
        limits=old.limits,
    )


async def next_expiries(database: Database, limit: int = 10) -> dict[str, float]:
    """Return the Unix times at which keys end, soonest first, by their ids.

    Left out are keys of which another of the same tenant and name outlives them: those that have
    been rotated.
    """
    rows = await database.fetch(
        "SELECT id, extract(epoch FROM expires_at)::float AS at FROM keys AS key"
        " WHERE revoked_at IS NULL AND expires_at > now() AND NOT EXISTS (SELECT FROM keys AS other"
        "  WHERE other.tenant = key.tenant AND other.name = key.name AND other.revoked_at IS NULL"
        "  AND (other.expires_at IS NULL OR other.expires_at > key.expires_at))"
        " ORDER BY expires_at LIMIT $1",
        limit,
    )
    return {row["id"]: row["at"] for row in rows}


class Refused(NamedTuple):
    """Why a token is good for nothing, and whose it is or says to be, where that is known."""

    reason: Literal["unknown", "wrong", "revoked", "expired"]
    tenant: str | None = None


async def find_token(database: Database, token: str) -> Principal | Refused:
    """Return what a token allows, or why it allows nothing: not for its bearer to know."""
    key_id, _, secret = token.removeprefix(PREFIX).partition("_")
    row = None
    if token.startswith(PREFIX) and secret and token.isascii() and token.isprintable():
        row = await database.fetchrow(f"SELECT {_COLUMNS}, hash FROM keys WHERE id = $1", key_id)
    fields = dict(row) if row is not None else {}
    # The same work whether the id exists or not.
    matches = hmac.compare_digest(fields.pop("hash", _NO_HASH), _hash(token))
    if not fields:
        return Refused("unknown")
    key = _key(fields)
    if not matches:
        return Refused("wrong", key.tenant)
    if key.revoked_at is not None:
        return Refused("revoked", key.tenant)
    principal = key.principal
    return Refused("expired", key.tenant) if principal.expired() else principal


async def any_keys(database: Database) -> bool:
    """Return whether there was ever a key: to revoke the last one opens nothing to nobody."""
    return bool(await database.fetchval("SELECT EXISTS (SELECT FROM keys)"))


def _check(
    tenant: str,
    name: str,
    scopes: Sequence[Scope],
    collections: Sequence[str] | None,
    expires_at: dt.datetime | None,
) -> None:
    if not TENANT.fullmatch(tenant):
        raise InvalidRequest(
            f"tenant: {tenant!r} is not 1 to 63 of a-z, 0-9, - and _, beginning with one of the"
            " first two kinds",
            param="tenant",
        )
    if not 1 <= len(name) <= NAME_CHARACTERS or not name.isprintable():
        raise InvalidRequest(
            f"name: {len(name)} characters; 1 to {NAME_CHARACTERS} printable ones are allowed",
            param="name",
        )
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise InvalidRequest(
            f"scopes: {', '.join(unknown) or 'none given'}; there are {', '.join(SCOPES)}",
            param="scopes",
        )
    for collection in collections or ():
        check_name(collection)
    if expires_at is not None and expires_at <= dt.datetime.now(dt.UTC):
        raise InvalidRequest(f"expires_at: {expires_at.isoformat()} is past", param="expires_at")


def _key(row: Mapping[str, Any]) -> Key:
    fields = dict(row)
    limits = msgspec.json.decode(fields.pop("limits"), type=KeyLimits)
    return Key(**fields, limits=limits)


def _to_json(limits: KeyLimits) -> str:
    return msgspec.json.encode(limits).decode()


def _storable(key_id: str) -> str:
    return key_id.replace("\0", "")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
