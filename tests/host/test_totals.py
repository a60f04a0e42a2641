"""Adding up what processes have counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ragserve.host.totals import Families, Family, Sample, add, merge, snapshot, value


def counted(
    requests: dict[str, int], seconds: list[float], busy: int, bounds: tuple[float, ...] = (0.1, 1)
) -> Families:
    """Return what a process has counted whose metrics are real ones."""
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests.", ["route"], registry=registry)
    for route, number in requests.items():
        counter.labels(route).inc(number)
    histogram = Histogram("time_seconds", "Time.", buckets=bounds, registry=registry)
    for second in seconds:
        histogram.observe(second)
    Gauge("busy", "Busy.", registry=registry).set(busy)
    return snapshot(registry.collect())


def samples(families: Families) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return all values by name and labels."""
    return {(s.name, s.labels): s.value for family in families for s in family.samples}


processes = st.builds(
    counted,
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 1000)),
    st.lists(st.floats(0.0, 20.0)),
    st.integers(0, 9),
)


def test_counters_are_summed_and_gauges_labelled() -> None:
    """The host's counter is the sum, by its labels; a gauge keeps a line for each process."""
    one, two = counted({"a": 1, "b": 2}, [0.05], 3), counted({"b": 5}, [0.5, 5.0], 4)
    merged = samples(merge(add([one]), {"0": one, "1": two}, ["0", "1"]))
    assert merged == {
        ("requests_total", (("route", "a"),)): 2,
        ("requests_total", (("route", "b"),)): 9,
        ("time_seconds_bucket", (("le", "0.1"),)): 2,
        ("time_seconds_bucket", (("le", "1.0"),)): 3,
        ("time_seconds_bucket", (("le", "+Inf"),)): 4,
        ("time_seconds_count", ()): 4,
        ("time_seconds_sum", ()): pytest.approx(5.6, abs=3e-6),
        ("busy", (("worker", "0"),)): 3,
        ("busy", (("worker", "1"),)): 4,
    }


@given(st.lists(processes, min_size=1, max_size=5), st.data())
def test_an_end_changes_no_sum(parts: list[Families], data: st.DataObject) -> None:
    """Whichever processes end, in whatever order they are folded, counters stay what they were."""
    living = {str(number): part for number, part in enumerate(parts)}
    before = samples(add([merge((), living, [])]))
    ended: Families = ()
    for worker in data.draw(st.permutations(list(living))):
        ended = add([ended, living.pop(worker)])
        assert samples(merge(ended, living, [])) == before


@given(st.lists(processes, min_size=2, max_size=4))
def test_the_order_does_not_matter(parts: list[Families]) -> None:
    """Sums are the same whoever is asked first."""
    assert samples(add(parts)) == samples(add(reversed(parts)))


@given(
    st.lists(st.floats(0.001, 20), max_size=20),
    st.lists(st.floats(0.001, 20), max_size=20),
    st.sets(st.sampled_from([0.1, 0.5, 1.0, 5.0, 10.0]), min_size=1),
    st.sets(st.sampled_from([0.1, 0.5, 1.0, 5.0, 10.0]), min_size=1),
)
def test_other_buckets_leave_exact_ones(
    one: list[float], two: list[float], bounds: set[float], others: set[float]
) -> None:
    """After an update has changed bounds, what both have is exact and what one has is left out."""
    merged = samples(
        add([
            counted({}, one, 0, tuple(sorted(bounds))),
            counted({}, two, 0, tuple(sorted(others))),
        ])
    )  # fmt: skip
    buckets = {
        dict(labels)["le"]: number
        for (name, labels), number in merged.items()
        if name == "time_seconds_bucket"
    }
    assert set(buckets) == {*(str(bound) for bound in bounds & others), "+Inf"}
    for bound, number in buckets.items():
        assert number == sum(second <= float(bound) for second in one + two)


def test_what_did_not_answer_counts_and_has_no_gauges() -> None:
    """A process that hangs keeps its counts in the sum; its gauges would be old."""
    one = counted({"a": 1}, [], 3)
    merged = merge((), {"0": one, "1": one}, ["0"])
    assert value(merged, "requests_total") == 2
    assert [family.samples for family in merged if family.name == "busy"] == [
        (Sample("busy", (("worker", "0"),), 3.0),)
    ]


def test_the_help_is_the_newest() -> None:
    """What has changed its text says the new one."""
    old, new = (Family("x", "counter", text, ()) for text in ("Old.", "New."))
    assert add([(old,), (new,)]) == (Family("x", "counter", "New.", ()),)
