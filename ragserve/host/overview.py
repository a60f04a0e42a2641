"""The whole host as one of its processes sees it: who is there, and what all have counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

from ragserve.host.asking import ASK_S, ask_all
from ragserve.host.ledger import Ledger
from ragserve.host.members import Identity, labels, members
from ragserve.host.presence import Presence, State
from ragserve.host.totals import Families, Family, Sample, merge

UP = "ragserve_worker_up"


class Seen(NamedTuple):
    """A process; ``state`` is None if it did not answer."""

    label: str
    identity: Identity
    state: State | None


async def look_around(
    directory: Path, question: str, own: Presence | None = None, timeout_s: float = ASK_S
) -> list[Seen]:
    """Ask every process of the host, except ``own``, which just answers; workers come first."""
    living, _ = members(directory)
    mine = own.identity.id if own else None
    others = [one for one in living if one.id != mine]
    states = await ask_all(directory, others, question, timeout_s)
    if own:
        if question == "report":
            own.report()
        states[own.identity.id] = own.state()
    named = labels(living)
    return [Seen(named[one.id], one, states.get(one.id)) for one in living]


async def host_metrics(own: Presence) -> Families:
    """Return the metrics of the host, all counters as of now for every process that answers."""
    seen = await look_around(own.directory, "report", own)
    return await asyncio.to_thread(_merged, own.ledger, seen)


def _merged(ledger: Ledger, seen: list[Seen]) -> Families:
    ledger.try_fold()
    ended, totals = ledger.read()
    # A process that came or went since is counted; only those seen get lines of their own.
    named = {one.identity.id: one.label for one in seen}
    living = {named.get(id_, id_): families for id_, families in totals.items()}
    fresh = [one.label for one in seen if one.state is not None and one.label in living]
    down = [one.label for one in seen if one.label not in fresh]
    families = merge(ended, living, fresh)
    return tuple(_with_down(family, down) if family.name == UP else family for family in families)


def _with_down(family: Family, down: list[str]) -> Family:
    lines = tuple(Sample(UP, (("worker", label),), 0.0) for label in down)
    return Family(UP, family.kind, family.help, (*family.samples, *lines))
