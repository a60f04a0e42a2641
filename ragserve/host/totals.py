"""What the processes of a host have counted, as data, and how it adds up. Pure.

A counter or histogram of the host is the sum over its processes, those that have ended included.
Everything else is true of one process only and gets a ``worker`` label. Buckets are cumulative:
where two processes have different bounds, as after an update, the sums at common bounds are exact
and the others are left out.

Floating-point sums depend on their order, and a counter that fell by its last bit would read as a
restart. Totals are therefore rounded to multiples of ``2**-20`` (a microsecond, in seconds) once,
when a process takes them; sums of such numbers are exact up to ``2**33``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from prometheus_client import Metric

SUMMED = frozenset({"counter", "histogram", "summary"})
GRID = 2.0**20

Labels = tuple[tuple[str, str], ...]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One number. ``labels`` are sorted pairs."""

    name: str
    labels: Labels
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """All samples of a metric."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


Families = tuple[Family, ...]


def snapshot(metrics: Iterable[Metric]) -> Families:
    """Return what a registry has collected."""
    return tuple(
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            tuple(
                Sample(
                    sample.name,
                    tuple(sorted(sample.labels.items())),
                    _on_grid(sample.value) if metric.type in SUMMED else sample.value,
                )
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ),
        )
        for metric in metrics
    )


def add(parts: Iterable[Families]) -> Families:
    """Return the sums of what can be summed, without the rest."""
    grouped: dict[tuple[str, str], list[Family]] = {}
    for families in parts:
        for family in families:
            if family.kind in SUMMED:
                grouped.setdefault((family.name, family.kind), []).append(family)
    return tuple(
        Family(name, kind, same[-1].help, _sum(same)) for (name, kind), same in grouped.items()
    )


def merge(ended: Families, living: Mapping[str, Families], fresh: Iterable[str]) -> Families:
    """Return the host's metrics; ``living`` is by worker, ``fresh`` are those that answered."""
    single: dict[str, Family] = {}
    for worker in fresh:
        for family in living[worker]:
            if family.kind not in SUMMED:
                before = single.get(family.name)
                samples = (*(before.samples if before else ()), *_labelled(family, worker))
                single[family.name] = Family(family.name, family.kind, family.help, samples)
    return (*add([ended, *living.values()]), *single.values())


def value(families: Families, name: str) -> float:
    """Return the sum of all samples of that name."""
    return sum(
        sample.value for family in families for sample in family.samples if sample.name == name
    )


def to_metrics(families: Families) -> list[Metric]:
    """Return what prometheus_client can write."""
    metrics = []
    for family in families:
        metric = Metric(family.name, family.help, family.kind)
        for sample in family.samples:
            metric.add_sample(sample.name, dict(sample.labels), sample.value)
        metrics.append(metric)
    return metrics


def _on_grid(value: float) -> float:
    return round(value * GRID) / GRID if math.isfinite(value) else value


def _labelled(family: Family, worker: str) -> Iterable[Sample]:
    for sample in family.samples:
        labels = tuple(sorted((*sample.labels, ("worker", worker))))
        yield Sample(sample.name, labels, sample.value)


def _sum(same: Sequence[Family]) -> tuple[Sample, ...]:
    sums: dict[tuple[str, Labels], float] = {}
    had: dict[tuple[str, Labels], int] = {}  # how many processes have this series
    series: dict[tuple[str, Labels], int] = {}  # and how many have it with any bound
    for family in same:
        seen = set()
        for sample in family.samples:
            key = (sample.name, sample.labels)
            sums[key] = sums.get(key, 0.0) + sample.value
            had[key] = had.get(key, 0) + 1
            seen.add(_without_bound(key))
        for key in seen:
            series[key] = series.get(key, 0) + 1
    return tuple(
        Sample(*key, total)
        for key, total in sums.items()
        if had[key] == series[_without_bound(key)]
    )


def _without_bound(key: tuple[str, Labels]) -> tuple[str, Labels]:
    name, labels = key
    return name, tuple(pair for pair in labels if pair[0] != "le")
