"""Credentials: how they are compared, whom guesses count for, what the database is asked."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import Counter
from types import SimpleNamespace

import asyncpg
import pytest

from ragserve.config import Config
from ragserve.errors import TooManyRequests, Unauthorized
from ragserve.flow.principal import credential_of
from ragserve.store import keys
from ragserve.store.keyring import Keyring
from ragserve.store.keys import create_key, find_token
from ragserve.store.pool import Database

HERE = "203.0.113.7"


class Counting(Database):
    """Counts the statements that read keys."""

    def __init__(self, dsn: str, config: Config) -> None:
        super().__init__(dsn, config.database, size=2)
        self.asked: Counter[str] = Counter()

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        self.asked["key"] += "FROM keys" in sql
        return await super().fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: object) -> object:
        self.asked["any"] += "FROM keys" in sql
        return await super().fetchval(sql, *args)


async def make_key(database: Database) -> str:
    _, token = await create_key(database, tenant="acme", name="x", scopes=["query"])
    return f"Bearer {token}"


async def test_secrets_are_compared_in_constant_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hash, one comparison each, whether the id exists or not and whatever the secret is."""
    authorization = await make_key(database)
    token = authorization.removeprefix("Bearer ")
    stored = await database.fetchval("SELECT hash FROM keys")
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(keys, "hmac", SimpleNamespace(compare_digest=compare_digest))
    unknown = "rs_0123456789ab_" + "x" * 43
    for given, expected in (
        (token, stored),
        (token[:-1] + "~", stored),
        (token + "x", stored),
        (unknown, bytes(32)),
        ("nonsense", bytes(32)),
    ):
        await find_token(database, given)
        assert compared.pop() == (expected, hashlib.sha256(given.encode()).digest())
        assert not compared


async def test_what_is_known_is_found_by_hash(database: Database, config: Config) -> None:
    """No time of a look-up tells of a secret, and no secret is in this process' memory of it."""
    keyring = Keyring(database, config.auth)
    authorization = await make_key(database)
    await keyring.authenticate(authorization, HERE)
    assert list(keyring._known) == [hashlib.sha256(authorization.encode()).digest()]
    assert list(keyring._known) == [credential_of(authorization.encode())]
    secret = authorization.rpartition("_")[2]
    assert secret not in repr(keyring._known)


async def test_the_database_is_asked_at_first_sight(dsn: str, config: Config) -> None:
    """Once for a key, however often it comes; for one that is wrong, each time until it waits."""
    database = Counting(dsn, config)
    await database.open()
    authorization = await make_key(database)
    database.asked.clear()
    keyring = Keyring(database, config.auth)
    keyring.reload()
    for _ in range(200):
        keyring.heard(time.monotonic())
        principal = await keyring.authenticate(authorization, HERE)
        assert principal.tenant == "acme"
    assert database.asked == {"key": 1, "any": 1}
    limit = config.auth.failures_per_minute
    for number in range(2 * limit):
        with pytest.raises(Unauthorized if number < limit else TooManyRequests):
            await keyring.authenticate(authorization + "x", HERE)
    assert database.asked == {"key": 1 + limit, "any": 1}
    await database.close()


async def test_a_network_guesses_as_one(database: Database, config: Config) -> None:
    """Whoever has an IPv6 network has 2^64 addresses; each guess is one of the same client's."""
    await make_key(database)
    keyring = Keyring(database, config.auth)
    for number in range(config.auth.failures_per_minute):
        with pytest.raises(Unauthorized):
            await keyring.authenticate("Bearer rs_0_wrong", f"2001:db8::{number:x}")
    with pytest.raises(TooManyRequests):
        await keyring.authenticate("Bearer rs_0_wrong", "2001:db8::ffff:1")
    with pytest.raises(Unauthorized):
        await keyring.authenticate("Bearer rs_0_wrong", "2001:db8:0:1::1")
