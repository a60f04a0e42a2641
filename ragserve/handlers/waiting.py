"""Waiting until documents are searchable: stored, and in this host's index."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from ragserve.handlers.services import Services
from ragserve.schema import Accepted
from ragserve.store.collections import Collection
from ragserve.store.documents import JobState, job_states

LOOK_AGAIN_S = 1.0
"""Jobs are looked at this often even if no notification came."""
INDEX_LOOK_S = 0.02
"""The index is a directory; it does not notify."""

STATES = {"done": "ready"}


async def wait_searchable(
    services: Services, collection: Collection, accepted: Sequence[Accepted], seconds: float
) -> list[Accepted]:
    """Return ``accepted`` with the states reached within ``seconds``.

    What is stored and not yet in the index keeps the state it was accepted with.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    jobs = [item.job for item in accepted if item.job is not None]
    while True:
        states = {state.id: state for state in await _states(services, collection, jobs)}
        left_s = until - loop.time()
        pending = any(state.state in ("queued", "running") for state in states.values())
        if not pending or left_s <= 0:
            break
        await services.changed.wait(min(left_s, LOOK_AGAIN_S))
    versions = [state.version for state in states.values() if state.version is not None]
    services.catalog.doubt(collection)
    if not await _indexed(services, collection, max(versions, default=0), until):
        states = {number: state for number, state in states.items() if state.state != "done"}
    return [_reached(item, states) for item in accepted]


async def _states(
    services: Services, collection: Collection, jobs: Sequence[int]
) -> Sequence[JobState]:
    return await job_states(services.database, collection, jobs) if jobs else ()


async def _indexed(services: Services, collection: Collection, version: int, until: float) -> bool:
    """Return whether this host's index has reached ``version``, at ``until`` at the latest."""
    loop = asyncio.get_running_loop()
    while services.indexes.version(collection, loop.time()) < version:
        if loop.time() >= until:
            return False
        await asyncio.sleep(INDEX_LOOK_S)
    return True


def _reached(item: Accepted, states: dict[int, JobState]) -> Accepted:
    state = states.get(item.job) if item.job is not None else None
    if state is None:
        return item
    return msgspec.structs.replace(
        item,
        state=STATES.get(state.state, state.state),
        error=state.error if state.error is not None else msgspec.UNSET,
    )
