from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from bench.fuzz_lane import fuzz_framing, fuzz_streams


def test_no_disagreement_about_where_a_request_ends() -> None:
    """Of 100,000 mutated requests, aiohttp and h11 read those that are accepted like the lane."""
    assert fuzz_framing(Random(1), 100_000).accepted > 10_000


def test_no_stream_is_answered_otherwise() -> None:
    """2,000 mutated streams in random segments get aiohttp's answers, lane or not."""
    assert asyncio.run(fuzz_streams(Random(2), 2_000)) > 4_000


@pytest.mark.nightly
def test_no_disagreement_in_ten_million() -> None:
    """The same at full length, with another seed each time."""
    random = Random(time.time_ns())
    assert fuzz_framing(random, 10_000_000).accepted > 1_000_000
    assert asyncio.run(fuzz_streams(random, 100_000)) > 200_000
