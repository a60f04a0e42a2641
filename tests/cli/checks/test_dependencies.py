"""What is judged of keys and Redis, and of an embedder that others were made with."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from ragserve.cli.checks.database import CREATE, REACH, check_database, judge_keys
from ragserve.cli.checks.models import check_embedder, check_models, judge_redis
from ragserve.config import Config
from ragserve.store.collections import ensure_collection
from ragserve.store.pool import Database
from tests.conftest import configured


@pytest.mark.parametrize(
    ("settings", "valid", "ever", "verdict", "text"),
    [
        ({}, 0, False, "pass", "none: clients on this machine"),
        ({}, 2, True, "pass", "2 valid"),
        ({}, 0, True, "fail", "all are revoked or expired"),
        ({"server__host": "0.0.0.0"}, 0, False, "warn", "only this machine is served"),
        ({"server__host": "0.0.0.0"}, 1, True, "pass", "1 valid"),
        (
            {"server__host": "::", "auth__allow_anonymous": True},
            0,
            False,
            "warn",
            "whoever reaches :: may ask, write and administer",
        ),
        ({"server__host": "::", "auth__allow_anonymous": True}, 1, True, "warn", "may ask without"),
    ],
)
def test_who_may_ask(
    settings: dict[str, object], valid: int, ever: bool, verdict: str, text: str
) -> None:
    """Open doors, and doors nobody can pass, are told."""
    (found,) = judge_keys(configured(**settings), valid, [], ever=ever)
    assert found.verdict == verdict
    assert text in found.detail


def test_keys_that_end_soon() -> None:
    """They are named."""
    _, ending = judge_keys(Config(), 3, ["b", "a"], ever=True)
    assert (ending.verdict, ending.detail) == ("warn", "end within 14 days: a, b")


async def test_a_database_has_room_for_us(dsn: str) -> None:
    """More connections than the server has are doubtful."""
    found = {one.name: one for one in await check_database(configured(), dsn)}
    assert {one.verdict for one in found.values()} == {"pass"}
    assert set(found) == {"database", "migrations", "keys"}
    found = {
        one.name: one for one in await check_database(configured(database__connections=500), dsn)
    }
    assert found["database"].verdict == "warn"
    assert "max_connections" in found["database"].remedy


async def test_a_database_that_is_not_there_yet(dsn: str) -> None:
    """It is to be made, where a server that is not there is to be reached."""
    nowhere = urlsplit(dsn)._replace(path="/none").geturl()
    for where, remedy in ((nowhere, CREATE), ("postgresql://127.0.0.1:1/x", REACH)):
        (found,) = await check_database(configured(), where)
        assert (found.verdict, found.remedy) == ("fail", remedy)


async def test_a_replica_that_is_none(dsn: str) -> None:
    """A primary in its place, and nobody there, are told; neither stops the server."""
    for replica, text in ((dsn, "it is no standby"), ("postgresql://127.0.0.1:1/x", "primary")):
        config = configured(database__replica_dsn=replica)
        found = (await check_database(config, dsn))[-1]
        assert (found.name, found.verdict) == ("replica", "warn")
        assert text in found.detail


async def test_collections_of_another_embedder(database: Database, dsn: str) -> None:
    """They could not be searched any more."""
    (found,) = await check_embedder(configured(), dsn)
    assert found.verdict == "pass"
    await ensure_collection(
        database, "default", "old", embedder="other-3", dimensions=3, language="en"
    )
    (found,) = await check_embedder(configured(), dsn)
    assert found.verdict == "fail"
    assert found.detail == "hashing-384, but there are collections of other-3"


async def test_one_model_of_two_is_away() -> None:
    """With another one beside it that is a warning, alone a failure."""
    away = {"base_url": "http://127.0.0.1:1/v1"}
    found = await check_models(configured(llm__upstreams=[away, away]))
    assert [one.verdict for one in found] == ["warn", "warn"]
    found = await check_models(configured(llm__upstreams=[away]))
    assert [(one.verdict, one.exit_code) for one in found] == [("fail", 1)]


def test_what_redis_says() -> None:
    """A slow one, one that will refuse, one with another time."""
    good = {"redis_version": "7.0", "maxmemory": 2**30, "maxmemory_policy": "allkeys-lru"}
    assert [one.verdict for one in judge_redis(Config(), good, 1.0, 0.0)] == ["pass"]
    full = {**good, "maxmemory_policy": "noeviction"}
    found = judge_redis(Config(), full, 99.0, 30.0)
    assert [(one.name, one.verdict) for one in found] == [
        ("redis", "warn"),
        ("redis", "warn"),
        ("clock", "warn"),
    ]
