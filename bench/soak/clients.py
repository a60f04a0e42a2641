"""Who asks: readings of gauges, streams, chats, clients that leave and clients that never finish.

Every document is a gauge of one tenant that says its tenant, number and reading; both tenants have
the same collection and the same ids, so whatever comes from the wrong place shows. An answer is
*stale* if a newer reading had been acknowledged more than ``BOUND_S`` before the question was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import aiohttp

from bench.correctness import Gauge

COLLECTION = "gauges"
MODES = ("hybrid", "dense", "lexical")
GAUGES = 20
TIMEOUT = aiohttp.ClientTimeout(total=60)
WRITE_PAUSE_S = 1.0
EXAMPLES = 5
"""Kept of each outcome of each kind."""
DYING_S = 1.0
"""So long a client may not know yet that the worker at the other end of a connection is gone."""
LOST = (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError, TimeoutError)
REFUSALS = (429, 503, 504)
_READING = re.compile(r"Gauge (\d+) of (\w+) reads (\d+)\.")


def clock() -> str:
    """Return the time of day as the server's log has it, to find there what happened."""
    return dt.datetime.now(dt.UTC).strftime("%H:%M:%S.%f")[:-3]


class Tally:
    """What clients saw: counts by outcome, deaths of workers, examples of what is wrong."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.deaths: list[tuple[float, float]] = []
        self.examples: list[str] = []

    def note(self, kind: str, outcome: str, example: str = "") -> None:
        """Count an outcome; keep the first few examples."""
        self.counts[kind, outcome] += 1
        if example and self.counts[kind, outcome] <= EXAMPLES:
            self.examples.append(f"{kind}, {outcome}: {example}")
            print(clock(), self.examples[-1], flush=True)

    def dying(self, since: float, until: float) -> None:
        """Note that a worker is on its way out between two times (monotonic seconds)."""
        self.deaths.append((since, until))

    def died(self, since: float, until: float) -> None:
        """Note when the one that has been dying ``since`` then was gone."""
        self.deaths = [(began, until if began == since else end) for began, end in self.deaths]

    def lost(self, kind: str, since: float, error: BaseException) -> None:
        """Count a request without an answer, sent at ``since``: a dying worker may have held it."""
        now = time.monotonic()
        held = any(began <= now and since <= until + DYING_S for began, until in self.deaths)
        self.note(kind, "lost with a worker" if held else "lost", "" if held else repr(error))

    def total(self, outcome: str) -> int:
        """Return how often that came of anything."""
        return sum(count for (_, found), count in self.counts.items() if found == outcome)


class Tenant:
    """One tenant's documents and the clients that ask for them."""

    def __init__(self, name: str, url: str, key: str, tally: Tally, seed: int) -> None:
        self.name = name
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._tally = tally
        self._rng = random.Random(seed)
        self._gauges = [Gauge(name, number) for number in range(GAUGES)]
        self._session: aiohttp.ClientSession

    async def run(self, rate_per_s: float, over: asyncio.Event) -> None:
        """Ask at a rate, write once a second, until it is over and all is answered."""
        # Half of the requests come over a connection of their own, so that all workers are asked.
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            self._url, connector=connector, headers=self._headers, timeout=TIMEOUT
        ) as self._session:
            while not all(gauge.acknowledged for gauge in self._gauges) and not over.is_set():
                await self._set(self._gauges)  # nobody can be asked to find what is not there yet
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(over))
                begin, number = time.monotonic(), 0
                while not over.is_set():
                    group.create_task(self._one())
                    number += 1
                    with contextlib.suppress(TimeoutError):
                        pause = begin + number / rate_per_s - time.monotonic()
                        await asyncio.wait_for(over.wait(), max(0.0, pause))

    async def _one(self) -> None:
        kinds: list[tuple[int, Callable[[], Coroutine[Any, Any, None]]]] = [
            (60, self._search),
            (25, self._query),
            (8, self._stream),
            (3, self._chat),
            (3, self._leave),
            (1, self._never_finish),
        ]
        (chosen,) = self._rng.choices([one for _, one in kinds], [weight for weight, _ in kinds])
        await chosen()

    async def _write(self, over: asyncio.Event) -> None:
        while not over.is_set():
            await self._set([self._rng.choice(self._gauges)])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), WRITE_PAUSE_S)

    async def _set(self, gauges: list[Gauge]) -> None:
        """Raise readings; what is acknowledged must be found from then on."""
        for gauge in gauges:
            gauge.submitted += 1
        readings = {gauge: gauge.submitted for gauge in gauges}
        body = {
            "collection": COLLECTION,
            "documents": [gauge.document(reading) for gauge, reading in readings.items()],
        }
        with self._watched("write"):
            async with self._session.post("/v1/documents?wait=30", json=body) as response:
                answer = await response.json()
                if response.status == 200:
                    now = time.monotonic()
                    for gauge, reading in readings.items():
                        gauge.acknowledged.append((now, reading))
                    self._tally.note("write", "right")
                elif response.status == 202:
                    self._tally.note("write", "accepted")  # safe, but not searchable in time
                else:
                    self._refused("write", response.status, answer)

    async def _search(self) -> None:
        gauge, question = self._question()
        asked_at = time.monotonic()
        with self._watched("search"):
            async with self._post("/v1/search", question) as response:
                answer = await response.json()
                if response.status != 200:
                    self._refused("search", response.status, answer)
                    return
                texts = [result["text"] for result in answer["results"]]
                self._judge("search", gauge, asked_at, texts, "degraded" in answer)

    async def _query(self) -> None:
        gauge, question = self._question()
        asked_at = time.monotonic()
        with self._watched("query"):
            async with self._post("/v1/query", question) as response:
                answer = await response.json()
                if response.status != 200:
                    self._refused("query", response.status, answer)
                    return
                texts = [citation["text"] for citation in answer["citations"]]
                # The paced model cites nothing: its answers have every passage.
                self._judge("query", gauge, asked_at, texts, "degraded" in answer)

    async def _stream(self) -> None:
        gauge, question = self._question()
        question |= {"stream": True, "query": f"{question['query']} ({self._rng.random()})"}
        asked_at = time.monotonic()
        with self._watched("stream"):
            async with self._post("/v1/query", question) as response:
                if response.status != 200:
                    self._refused("stream", response.status, await response.json())
                    return
                events = _events((await response.read()).decode())
                name, last = events[-1] if events else ("", {})
                if name == "error":
                    self._tally.note("stream", "told of its end")
                elif name != "end":
                    raise aiohttp.ClientPayloadError(f"no end: {events[-1:]}")
                else:
                    # Told again when the model failed before its first word: the last ones count.
                    sources = [data for name, data in events if name == "sources"][-1]
                    texts = [citation["text"] for citation in sources["citations"]]
                    self._judge("stream", gauge, asked_at, texts, "degraded" in last)

    async def _chat(self) -> None:
        gauge, question = self._question()
        body = {
            "model": f"rag:{COLLECTION}",
            "stream": True,
            "messages": [{"role": "user", "content": f"{question['query']} {self._rng.random()}"}],
        }
        with self._watched("chat"):
            async with self._post("/v1/chat/completions", body) as response:
                if response.status != 200:
                    self._refused("chat", response.status, await response.json())
                    return
                text = (await response.read()).decode()
                others = [said for said in _READING.findall(text) if said[1] != gauge.collection]
                if others:
                    self._tally.note("chat", "of another tenant", str(others))
                elif '"error"' in text:
                    self._tally.note("chat", "told of its end")
                elif not text.endswith("data: [DONE]\n\n"):
                    raise aiohttp.ClientPayloadError(f"no end: {text[-100:]!r}")
                else:
                    self._tally.note("chat", "right")

    async def _leave(self) -> None:
        """Ask for a stream and leave at some moment."""
        _, question = self._question()
        question |= {"stream": True, "query": f"{question['query']} ({self._rng.random()})"}
        with contextlib.suppress(TimeoutError, *LOST):
            async with asyncio.timeout(self._rng.random()):
                async with self._post("/v1/query", question) as response:
                    await response.read()
        self._tally.note("leave", "right")

    async def _never_finish(self) -> None:
        """Begin a request, and wait for what the server does about it."""
        host, _, port = self._url.removeprefix("http://").partition(":")
        with contextlib.suppress(*LOST):
            async with asyncio.timeout(40):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Le")
                await reader.read()
                writer.close()
        self._tally.note("never finish", "right")

    def _question(self) -> tuple[Gauge, dict[str, Any]]:
        gauge = self._rng.choice(self._gauges)
        question = gauge.question(self._rng.choice(MODES))
        return gauge, {**question, "collection": COLLECTION}

    def _post(self, path: str, body: object) -> Any:
        headers = {"Connection": "close"} if self._rng.random() < 0.5 else {}
        return self._session.post(path, json=body, headers=headers)

    @contextlib.contextmanager
    def _watched(self, kind: str) -> Iterator[None]:
        since = time.monotonic()
        try:
            yield
        except LOST as error:
            self._tally.lost(kind, since, error)

    def _judge(
        self, kind: str, gauge: Gauge, asked_at: float, texts: list[str], degraded: bool
    ) -> None:
        """Count an answer by the passage that it comes from."""
        note = self._tally.note
        said = [found for text in texts if (found := _READING.search(text))]
        if any(one[2] != gauge.collection for one in said):
            note(kind, "of another tenant", str(texts))
        elif len(said) != 1 or int(said[0][1]) != gauge.number:
            # Without the vectors' half, or the words', a filter still holds.
            note(kind, "degraded, empty" if degraded and not said else "wrong", str(texts))
        elif int(said[0][3]) < gauge.oldest_allowed(asked_at):
            oldest = gauge.oldest_allowed(asked_at)
            note(kind, "degraded, old" if degraded else "stale", f"{texts}, but {oldest}")
        else:
            note(kind, "degraded" if degraded else "right")

    def _refused(self, kind: str, status: int, answer: object) -> None:
        if status in REFUSALS:
            self._tally.note(kind, f"refused {status}")
        else:
            self._tally.note(kind, "error", f"{status} {answer}")


def _events(text: str) -> list[tuple[str, Any]]:
    """Return the named events of a stream of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
