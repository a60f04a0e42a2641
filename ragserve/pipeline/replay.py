"""A kept answer told as if it were being written: all at once, or word by word."""

from __future__ import annotations

import asyncio
import re
import time

from ragserve.flow.deadline import Deadline
from ragserve.flow.flight import Publish
from ragserve.pipeline.events import Event, Sources, words
from ragserve.schema import QueryResponse

_WORDS = re.compile(r"\s*\S{1,16}\s*")
"""Scripts without spaces have long "words"."""


async def replay(
    answer: QueryResponse, hear: Publish[Event], pause_s: float, deadline: Deadline
) -> None:
    """Tell the sources, then the words with pauses between them; without any past the deadline."""
    hear(Sources(answer.citations))
    if not pause_s:
        hear(words(answer.answer))
        return
    pieces = _WORDS.findall(answer.answer)
    for number, piece in enumerate(pieces):
        if deadline.remaining_s(time.monotonic()) <= pause_s:
            hear(words("".join(pieces[number:])))
            return
        hear(words(piece))
        await asyncio.sleep(pause_s)
