"""Token buckets of all workers and hosts, in Redis: one atomic script gives tokens out.

The same algorithm as ``flow.bucket``, in integer microseconds of Redis' own clock, so that hosts
need not agree on the time. A bucket's key ends when the bucket is full. Tokens are given in small
numbers (*leases*): with k tokens a lease, at most burst + rate × time + workers × k pass.
"""

from __future__ import annotations

from typing import NamedTuple

from ragserve.flow.bucket import Rate
from ragserve.store.redis import Redis

_SCRIPT = """
local interval, span, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local got = math.min(want, math.floor((span - (full_at - now)) / interval))
if got == 0 then return {0, full_at + interval - span - now, 0} end
full_at = math.max(full_at + got * interval, now)
if full_at > now then
  local lasts_ms = math.ceil((full_at - now) / 1000)
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', lasts_ms)
else
  redis.call('DEL', KEYS[1])
end
return {got, 0, math.floor((span - (full_at - now)) / interval)}
"""


_CHARGE = """
local interval, span, tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local full_at = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + tokens * interval
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return math.max(0, full_at + interval - span - now)
"""


class Lease(NamedTuple):
    """Tokens that were given, seconds until there is one if none was, and how many are left."""

    tokens: int
    wait_s: float
    left: int


class Shares:
    """Leases of tokens. ``clock`` returns microseconds in place of Redis' clock."""

    def __init__(self, redis: Redis, prefix: str, clock: object = None) -> None:
        self._redis = redis
        self._prefix = prefix
        self._clock = clock

    @property
    def reachable(self) -> bool:
        """Return whether it is worth while to ask."""
        return self._redis.reachable

    async def take(self, identity: str, rate: Rate, tokens: int) -> Lease:
        """Take up to so many tokens; raise ``Unavailable``. Fewer than none: give them back."""
        key, arguments = self._arguments(identity, rate, tokens)
        got, wait_us, left = await self._redis.call(
            lambda redis: redis.eval(_SCRIPT, 1, key, *arguments)
        )
        return Lease(got, wait_us / 1e6, left)

    async def charge(self, identity: str, rate: Rate, tokens: int) -> float:
        """Take tokens whether or not they are there; return seconds until there is one."""
        key, arguments = self._arguments(identity, rate, tokens)
        wait_us = await self._redis.call(lambda redis: redis.eval(_CHARGE, 1, key, *arguments))
        return int(wait_us) / 1e6

    def _arguments(self, identity: str, rate: Rate, tokens: int) -> tuple[str, tuple[int, ...]]:
        now = self._clock() if callable(self._clock) else 0
        times = (round(rate.interval_s * 1e6), round(rate.span_s * 1e6))
        return f"{self._prefix}rate:{identity}", (*times, tokens, now)
