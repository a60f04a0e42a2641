"""A kept answer told anew: at once, or paced."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from ragserve.flow.deadline import deadline_after
from ragserve.pipeline import Event, Sources
from ragserve.pipeline.replay import replay
from ragserve.schema import Citation, QueryResponse, Usage

TEXT = "Lunch is at\n half past twelve [1]. " + "é" * 40
CITATION = Citation(1, "office", "1", "Office guide", 0.9, "Lunch is at noon.")
ANSWER = QueryResponse("ans-1", TEXT, [CITATION], "m", Usage(), "hit")


async def told(pause_s: float, budget_s: float = 30.0) -> list[str]:
    """Return the pieces of the answer's text."""
    events: list[Event] = []
    await replay(ANSWER, events.append, pause_s, deadline_after(budget_s, time.monotonic()))
    sources, *pieces = events
    assert sources == Sources([CITATION])
    return [msgspec.json.decode(b'"%b"' % piece) for piece in pieces if isinstance(piece, bytes)]


async def test_without_a_pause_it_is_told_at_once() -> None:
    """One piece, the whole text."""
    assert await told(0.0) == [TEXT]


async def test_paced_it_comes_word_by_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pause behind each word; together they are the text, to the last space."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def nap(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", nap)
    words = await told(0.01)
    assert "".join(words) == TEXT
    assert words[:3] == ["Lunch ", "is ", "at\n "]
    assert "[1]. " in words
    assert max(map(len, words)) < 20
    assert pauses == [0.01] * len(words)


async def test_pacing_ends_with_the_time() -> None:
    """What a client would no longer wait for is told at once."""
    words = await told(10.0, budget_s=5.0)
    assert words == [TEXT]
