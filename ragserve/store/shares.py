"""Token buckets of all workers and hosts, in Redis: one atomic script gives tokens out.

The same algorithm as ``flow.bucket``, in integer microseconds of Redis' own clock, so that hosts
need not agree on the time. A bucket's key ends when the bucket is full. Tokens are given in small
numbers (*leases*): with k tokens a lease, at most burst + rate × time + workers × k pass.

Redis may forget, and its clock may jump. So a bucket has a date of birth, and a worker that knew
it before it was born anew tells what it knows (``Known``): what any worker remembers is counted,
once. With it goes what the worker gave out while nobody could be asked (``owed``). A key also
holds when it was written: a clock that has gone back takes the bucket along.
"""

from __future__ import annotations

from typing import NamedTuple

from ragserve.flow.bucket import Rate
from ragserve.store.redis import Redis

_READ = """
local interval, span, tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local value = redis.call('GET', KEYS[1]) or ''
local full_at, written, base, born = string.match(value, '^(%d+) (%d+) (%d+) (%d+)$')
local back = math.max(0, tonumber(written or 0) - now)
full_at, base = tonumber(full_at or 0) - back, math.max(tonumber(base or 0) - back, now)
if full_at <= now then full_at, base, born = now, now, string.format('%.0f', now) end
local function keep()
  if full_at > now then
    value = string.format('%.0f %.0f %.0f ', full_at, now, base) .. born
    redis.call('SET', KEYS[1], value, 'PX', math.ceil((full_at - now) / 1000))
  else
    redis.call('DEL', KEYS[1])
  end
end
"""
# ``base`` is the latest that anybody has told of the time before this bucket was born.
_TAKE = f"""
{_READ}
local told, owed = now + tonumber(ARGV[5]), tonumber(ARGV[7])
if ARGV[6] ~= born and told > base then
  full_at, base = full_at + told - base, told
end
full_at = math.min(full_at + owed * interval, now + span)
local got = tokens
if tokens > 0 then
  got = math.min(tokens, math.floor((span - (full_at - now)) / interval))
end
full_at = math.max(full_at + got * interval, now)
keep()
local wait = 0
if got == 0 then wait = full_at + interval - span - now end
return {{got, wait, math.floor((span - (full_at - now)) / interval), full_at - now, born}}
"""
_CHARGE = f"""
{_READ}
full_at = full_at + tokens * interval
keep()
return math.max(0, full_at + interval - span - now)
"""


class Known(NamedTuple):
    """What a worker knows of a bucket: its date of birth, and when it is full again."""

    born: str = ""
    full_in_s: float = 0.0


NOTHING = Known()


class Lease(NamedTuple):
    """Tokens that were given, seconds until there is one if none was, and how many are left."""

    tokens: int
    wait_s: float
    left: int
    bucket: Known


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

    async def take(
        self, identity: str, rate: Rate, tokens: int, known: Known = NOTHING, owed: int = 0
    ) -> Lease:
        """Take up to so many tokens; raise ``Unavailable``. Fewer than none: give them back."""
        key, arguments = self._arguments(identity, rate, tokens)
        told = (round(known.full_in_s * 1e6), known.born, owed)
        got, wait_us, left, full_in_us, born = await self._redis.call(
            lambda redis: redis.eval(_TAKE, 1, key, *arguments, *told)
        )
        return Lease(got, wait_us / 1e6, left, Known(born.decode(), full_in_us / 1e6))

    async def charge(self, identity: str, rate: Rate, tokens: int) -> float:
        """Take tokens whether or not they are there; return seconds until there is one."""
        key, arguments = self._arguments(identity, rate, tokens)
        wait_us = await self._redis.call(lambda redis: redis.eval(_CHARGE, 1, key, *arguments))
        return int(wait_us) / 1e6

    def _arguments(self, identity: str, rate: Rate, tokens: int) -> tuple[str, tuple[int, ...]]:
        now = self._clock() if callable(self._clock) else 0
        times = (round(rate.interval_s * 1e6), round(rate.span_s * 1e6))
        return f"{self._prefix}rate:{identity}", (*times, tokens, now)
