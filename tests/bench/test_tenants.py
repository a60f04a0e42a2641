"""One abusive tenant: who asks what, and how it is summed up."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

from bench import tenants
from bench.contenders import Up
from bench.load import requests


def test_keys_take_turns_and_no_question_comes_twice() -> None:
    """Each key asks as often as any; loads of different seeds have no question in common."""
    asked = [
        request
        for seed in (1, 2)
        for request in islice(
            requests(
                ["Why?", "How?"],
                host="a",
                path="/",
                fields={},
                zipf=1.0,
                keys=["one", "two", "three"],
                seed=seed,
                fresh=True,
            ),
            30,
        )
    ]
    heads, bodies = zip(*(request.split(b"\r\n\r\n") for request in asked), strict=True)
    keys = Counter(line for head in heads for line in head.split(b"\r\n") if b"Bearer" in line)
    assert keys == {b"Authorization: Bearer %s" % key: 20 for key in (b"one", b"two", b"three")}
    assert len({json.loads(body)["query"] for body in bodies}) == 60


def test_every_load_has_a_seed_of_its_own() -> None:
    """What one phase has asked is not known to the next."""
    commands = [tenants._command(Up(1, []), ["a", "b"]) for _ in range(2)]
    seeds = [command[command.index("--seed") + 1] for command in commands]
    assert seeds[0] != seeds[1]
    assert commands[0][-4:] == ["--key", "a", "--key", "b"]


def test_the_limit_follows_what_a_server_can_answer() -> None:
    """A hundredth of it."""
    limits = [int(next(iter(tenants.protections_at(peak))).split()[2]) for peak in (0.1, 100, 400)]
    assert limits == [1, 60, 240]
    assert list(tenants.protections_at(100))[1] == "turns at the gates alone"


def test_each_tenant_has_papers() -> None:
    """Those of the handbook that are plain text."""
    assert [paper["id"] for paper in tenants.documents()] == list(tenants.PAPERS)
    assert all(len(paper["text"]) > 1000 for paper in tenants.documents())


def report(p99: float, **statuses: int) -> tenants.Figures:
    return {
        "seconds": 10.0,
        "statuses": {name[1:]: count for name, count in statuses.items()},
        "answered_ms": {"p50": 5.0, "p99": p99, "max": 90.0},
        "refused_ms": {"p50": 0.5, "p99": 2.0, "max": 3.0} if len(statuses) > 1 else {},
    }


def test_rounds_are_put_together() -> None:
    """Requests are added up; one bad round changes nothing; without refusals none is told."""
    rounds = [report(20.0, _200=100), report(900.0, _200=300), report(30.0, _200=200)]
    made = tenants.together(rounds)
    assert (made["asked_per_s"], made["answers_per_s"]) == (20.0, 20.0)
    assert (made["answered_ms"]["p99"], made["refused_ms"]["p99"]) == (30.0, 0.0)


def test_the_table_compares_with_and_without() -> None:
    """The others' p99 beside the flood is told as a multiple of theirs alone."""
    loads = {
        "alone": tenants.together([report(20.0, _200=1000)]),
        "beside": tenants.together([report(25.0, _200=990, _503=10)]),
        "flood": tenants.together([report(300.0, _200=100, _429=39_900)]),
    }
    lines = tenants.table({"protections": {"a limit": loads}}).splitlines()
    assert "| a limit: others alone | 100 | 100 | 0 | 5.0 | 20.0 | 1.00 | 0.0 |" in lines
    assert "| a limit: others beside it | 100 | 99 | 10 | 5.0 | 25.0 | 1.25 | 2.0 |" in lines
    assert "| a limit: the abusive one | 4,000 | 10 | 39,900 | 5.0 | 300.0 |  | 2.0 |" in lines
