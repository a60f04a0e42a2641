"""The first tier: what is kept for how long, found how, and dropped when."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections import OrderedDict

import msgspec
import pytest

from ragserve.cache import Answers
from ragserve.cache.answers import EAGERNESS, Entry
from ragserve.config import CacheConfig
from ragserve.store.collections import Collection

COLLECTION = Collection(1, "acme", "default", "en", "hashing-384", 384, 5, 1_700_000_000)
CONFIG = CacheConfig(memory_bytes=2**20, ttl_s=100.0, stale_s=50.0, negative_ttl_s=10.0)
PATH = b"/v1/query"
BODY = b'{"query":"lunch"}'


class Known:
    """What is known of the collection, as the catalog would say it."""

    def __init__(self) -> None:
        self.collection: Collection | None = COLLECTION

    def __call__(self, tenant: str, name: str, now: float) -> Collection | None:
        assert (tenant, name) == ("acme", "default")
        return self.collection


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def answers(known: Known) -> Answers:
    return Answers(CONFIG, known, random.Random(1))


def put(answers: Answers, key: bytes = b"key", now: float = 0.0, **more: object) -> Entry:
    return answers.put(key, COLLECTION, b'{"answer":"noon"}', now, **more)  # type: ignore[arg-type]


def test_an_answer_is_ready_to_be_sent(answers: Answers) -> None:
    """Head and body are complete but for what differs from request to request."""
    entry = put(answers)
    assert answers.get(b"key", 1.0) is entry
    assert entry.prepared.body == b'{"answer":"noon"}'
    lines = entry.prepared.head.split(b"\r\n")
    assert lines[:3] == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Cache-Status: ragserve; hit; detail=memory",
    ]
    assert entry.prepared.age_line(7.9) == b"Age: 7\r\n"
    assert entry.age_s(7.5) == 7.5


def test_lifetimes_differ(answers: Answers) -> None:
    """What was computed together does not expire together: up to a tenth less, never more."""
    ends = [put(answers, bytes([number])).fresh_until for number in range(200)]
    assert 90.0 <= min(ends) < 91.0
    assert 99.0 < max(ends) <= 100.0


def test_an_answer_is_stale_for_a_while_and_then_gone(answers: Answers) -> None:
    """After its time it is still there for stale_s, due to be computed again."""
    entry = put(answers)
    end = entry.fresh_until
    assert not answers.is_due(entry, end - 0.001)
    assert answers.get(b"key", end + 49.9) is entry
    assert answers.is_due(entry, end)
    assert answers.get(b"key", end + 50.0) is None


def test_nothing_found_is_kept_shortly(answers: Answers) -> None:
    """A negative answer has a short life and is never stale."""
    entry = put(answers, negative=True)
    assert 9.0 <= entry.fresh_until <= 10.0
    assert answers.get(b"key", entry.fresh_until) is None


def test_a_costly_answer_is_refreshed_early_by_one_of_its_readers() -> None:
    """XFetch: at cost d before the end the odds are 1 in e; none so far ahead that all are."""
    entry = Entry(b"key", COLLECTION, None, 100.0, 50.0, 2.0)  # type: ignore[arg-type]
    rng = random.Random(7)
    draws = [1.0 - rng.random() for _ in range(20_000)]
    for before, odds in ((0.0, 1.0), (2.0, 0.3679), (4.0, 0.1353), (2 * EAGERNESS + 1, 0.0)):
        due = sum(entry.is_due(100.0 - before, draw) for draw in draws)
        assert due / len(draws) == pytest.approx(odds, abs=0.02)
    entry.postpone(110.0)
    assert not entry.is_due(109.9, 1e-9)
    assert entry.is_due(110.0, 1.0)


def test_a_body_finds_its_answer(answers: Answers) -> None:
    """Exactly this tenant, path and body."""
    answers.note_body("/v1/query", BODY, put(answers))
    found = answers.try_prepared("acme", PATH, BODY, 1.0)
    assert found is not None
    assert found.body == b'{"answer":"noon"}'
    assert answers.try_prepared("acme", b"/v1/search", BODY, 1.0) is None
    assert answers.try_prepared("acme", PATH, BODY + b" ", 1.0) is None
    assert answers.try_prepared("other", PATH, BODY, 1.0) is None


@pytest.mark.parametrize("change", [{"version": 6}, {"id": 2}, {"born": 1}], ids=str)
def test_a_body_finds_nothing_of_another_version(
    answers: Answers, known: Known, change: dict[str, int]
) -> None:
    """Once the collection has changed, or is another one of its name, bodies find nothing."""
    answers.note_body("/v1/query", BODY, put(answers))
    known.collection = msgspec.structs.replace(COLLECTION, **change)
    assert answers.is_outdated(COLLECTION, 1.0)
    assert answers.try_prepared("acme", PATH, BODY, 1.0) is None


def test_a_body_finds_nothing_while_nothing_is_known(answers: Answers, known: Known) -> None:
    """Not knowing the version is no reason to forget the answer."""
    answers.note_body("/v1/query", BODY, put(answers))
    known.collection = None
    assert not answers.is_outdated(COLLECTION, 1.0)
    assert answers.try_prepared("acme", PATH, BODY, 1.0) is None
    known.collection = msgspec.structs.replace(COLLECTION)
    assert answers.try_prepared("acme", PATH, BODY, 1.0) is not None


def test_what_is_due_is_left_to_those_who_can_refresh(answers: Answers) -> None:
    """The fast way gives no answer that is due, and no stale one: it cannot say that it is."""
    entry = put(answers, cost_s=0.1)
    answers.note_body("/v1/query", BODY, entry)
    end = entry.fresh_until
    entry.postpone(end + 30.0)
    assert answers.try_prepared("acme", PATH, BODY, end - 0.001) is not None
    assert answers.try_prepared("acme", PATH, BODY, end) is None
    entry.postpone(0.0)
    assert any(answers.try_prepared("acme", PATH, BODY, end - 0.001) is None for _ in range(100))


def test_a_tenants_answers_can_be_forgotten(answers: Answers) -> None:
    """Those of one collection, or all; never another tenant's."""
    other = msgspec.structs.replace(COLLECTION, tenant="other")
    second = msgspec.structs.replace(COLLECTION, id=2)
    put(answers)
    answers.put(b"second", second, b"{}", 0.0)
    answers.put(b"other", other, b"{}", 0.0)
    answers.forget("acme", 1)
    assert [key in answers for key in (b"key", b"second", b"other")] == [False, True, True]
    answers.forget("acme")
    assert [key in answers for key in (b"second", b"other")] == [False, True]


def test_without_memory_nothing_is_kept(known: Known) -> None:
    """cache.memory_bytes = 0 turns the tier off."""
    answers = Answers(CacheConfig(memory_bytes=0), known)
    entry = put(answers)
    answers.note_body("/v1/query", BODY, entry)
    assert answers.get(b"key", 0.0) is None
    assert answers.size_bytes == 0


@pytest.mark.parametrize("distinct", [60_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_memory_stays_within_its_bound(known: Known, distinct: int) -> None:
    """Of so many distinct questions as many are kept as fit, all objects counted."""
    bound = 16 * 2**20
    answers = Answers(CacheConfig(memory_bytes=bound), known)
    tracemalloc.start()
    try:
        for number in range(distinct):
            key = number.to_bytes(20, "big")
            body = b'{"answer":"%d"}' % number + b" " * (number % 600)
            entry = answers.put(key, COLLECTION, body, float(number))
            if number % 2:
                answers.note_body("/v1/query", b'{"query":"question %d"}' % number, entry)
                answers.try_prepared("acme", PATH, b'{"query":"question %d"}' % number, number + 9)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.7 * bound < used <= bound
    assert len(answers) > 5000


def test_as_many_hits_as_an_ideal_lru(known: Known) -> None:
    """On 100,000 questions of a Zipf(1.0) distribution: within half a percent of the ideal."""
    distinct, asked, body = 20_000, 100_000, b"x" * 1200
    rng = random.Random(5)
    weights = list(itertools.accumulate(1.0 / rank for rank in range(1, distinct + 1)))
    answers = Answers(CacheConfig(memory_bytes=4 * 2**20), known, rng)
    ideal: OrderedDict[int, None] = OrderedDict()
    hits = ideal_hits = 0
    for number in rng.choices(range(distinct), cum_weights=weights, k=asked):
        key = number.to_bytes(20, "big")
        if answers.get(key, 0.0) is None:
            answers.put(key, COLLECTION, body, 0.0)
        else:
            hits += 1
        if number in ideal:
            ideal_hits += 1
            ideal.move_to_end(number)
        else:
            ideal[number] = None
            if len(ideal) > len(answers):
                ideal.popitem(last=False)
    assert len(answers) == len(ideal) > 1000
    assert abs(hits - ideal_hits) / asked < 0.005
    assert hits / asked > 0.6
