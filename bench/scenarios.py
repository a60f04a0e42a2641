"""What is measured: which load, on whom, how often."""

from __future__ import annotations

from typing import NamedTuple

from bench import cores
from bench.contenders import (
    Contender,
    behind_nginx,
    fastapi,
    from_redis,
    gin,
    nginx_return,
    ragserve,
)
from bench.relays import aiohttp_relay, litellm, nobody, reverse_proxy, with_model
from bench.streams import Streams


class Load(NamedTuple):
    """``users`` who think for ``think_s`` on average, or requests at ``rate`` a second."""

    users: int = 64
    think_s: float = 0.0
    rate: float = 0.0
    zipf: float = 1.0
    fresh: bool = False
    """Every question is a new one, so that no cache can answer."""
    wrk: bool = False
    """No user thinks, and the generator is wrk: ours cannot saturate a fast server."""


class Scenario(NamedTuple):
    """A load on each contender in turn. The first contender is what others are compared with."""

    name: str
    about: str
    load: Load | Streams
    contenders: tuple[Contender, ...]


RAGSERVE = ragserve("ragserve", len(cores.SERVERS))
ORDINARY = ragserve(
    "ragserve, lane off",
    len(cores.SERVERS),
    lambda _place: {"RAGSERVE_SERVER__EXPRESS_LANE": "false"},
)
UNREMEMBERED = ragserve(
    "ragserve, no sentence seen before",
    len(cores.SERVERS),
    lambda _place: {"RAGSERVE_EMBEDDING__CACHE_BYTES": "0"},
)
FASTAPI = fastapi("FastAPI", 1)
FASTAPIS = behind_nginx("4 FastAPI behind nginx", fastapi("FastAPI × 4", 4))
GIN = gin("Gin", 1)
GINS = behind_nginx("5 Gin behind nginx", gin("Gin × 5", 5))
FROM_REDIS = from_redis("ragserve, answers in Redis")
LIMIT = nginx_return("nginx return 200")
FAST_RELAYS = (
    with_model("ragserve, answers from documents", "rag"),
    with_model("ragserve, passed through", "paced"),
    reverse_proxy("Go ReverseProxy"),
    nobody("no relay"),
)
ALL = (RAGSERVE, FASTAPI, FASTAPIS, GIN, GINS, LIMIT)


def _users(count: int) -> Scenario:
    return Scenario(
        f"users-{count}",
        f"{count} people ask what has been asked before, every half a second on average",
        Load(users=count, think_s=0.5),
        ALL,
    )


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        _users(100),
        _users(500),
        _users(1000),
        _users(2000),
        Scenario(
            "cached",
            "64 connections ask what has been asked before, without a pause",
            Load(users=64, wrk=True),
            (RAGSERVE, ORDINARY, FROM_REDIS, FASTAPI, GIN, LIMIT),
        ),
        Scenario(
            "cached-1000",
            "1,000 connections ask what has been asked before, without a pause",
            Load(users=1000, wrk=True),
            (RAGSERVE, FASTAPI, GIN, LIMIT),
        ),
        Scenario(
            "uncached",
            "32 connections ask new questions: embedding, retrieval and an answer each",
            Load(users=32, fresh=True),
            (RAGSERVE, UNREMEMBERED),
        ),
        Scenario(
            "streams-50",
            "50 people each read an answer of their own, 5 tokens a second",
            Streams(50, 60, 200, 4.0),
            (*FAST_RELAYS, litellm("LiteLLM")),
        ),
        Scenario(
            "streams-500",
            "500 people each read an answer of their own, 50 tokens a second",
            # As below: a hundred new questions a second leave no room for relaying.
            Streams(500, 2400, 20, 20.0),
            (*FAST_RELAYS, aiohttp_relay("aiohttp's client"), litellm("LiteLLM")),
        ),
        Scenario(
            "streams-1000",
            "1,000 people each read an answer of their own, 25 tokens a second",
            Streams(1000, 1900, 40, 60.0),
            FAST_RELAYS,
        ),
        Scenario(
            "streams-5000",
            "5,000 people each read an answer of their own, 2 tokens a second",
            # Questions come slowly enough that none is refused, and the first answers are still
            # being read when the last one begins.
            Streams(5000, 140, 500, 60.0),
            FAST_RELAYS,
        ),
    )
}
