"""A kept answer told as if it were being written: all at once, or word by word."""

from __future__ import annotations

import asyncio
import re
import time

from ragserve.flow.deadline import Deadline
from ragserve.flow.flight import Publish
from ragserve.pipeline.events import Event, Sources, delta
from ragserve.schema import QueryResponse

_WORDS = re.compile(r"\s*\S{1,16}\s*")
"""Scripts without spaces have long "words"."""


async def replay(
    answer: QueryResponse, hear: Publish[Event], pause_s: float, deadline: Deadline
) -> None:
    """Tell the sources, then the words with pauses between them; without any past the deadline."""
    hear(Sources(answer.citations))
    if not pause_s:
        hear(delta(answer.answer))
        return
    words = _WORDS.findall(answer.answer)
    for number, word in enumerate(words):
        if deadline.remaining_s(time.monotonic()) <= pause_s:
            hear(delta("".join(words[number:])))
            return
        hear(delta(word))
        await asyncio.sleep(pause_s)
