"""Clients of a server whose database goes away: every request of theirs is counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import aiohttp

from tests.e2e.conftest import ServerProcess

RATE_PER_S = 40
PATIENCE_S = 20.0
"""Whoever has no answer by then is lost."""
REFUSALS = ("unavailable", "deadline_exceeded", "overloaded")
FACTS = {
    "lunch": "Lunch is served at noon in the canteen.",
    "office": "The office opens at nine in the morning.",
}
QUESTIONS = {
    # Words enough that a number hashed to the place of one of them does not matter.
    "lunch": "when is lunch served in the canteen at noon",
    "office": "when does the office open in the morning at nine",
}
MEMOS = "memos"
KINDS = ("search", "query", "known", "search", "query", "known", "search", "upload")


class Clients:
    """Ask ``server`` what is new and what it has answered before, and hand documents in.

    ``seen`` counts by kind of request and outcome: right, degraded, refused, wrong or lost, which
    is neither an answer nor a clear refusal. ``slowest_s`` is the longest wait for one, by kind;
    ``wrong`` has the wrong answers themselves, ``refusals`` the codes of refusals by kind.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.seen: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.slowest_s: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        self.wrong: list[Any] = []
        self.refusals: Counter[str] = Counter()
        self._server = server
        self._count = 0
        self._accepted: list[str] = []

    async def prepare(self) -> None:
        """Hand in what is asked for, and ask what will be known."""
        for name, text in FACTS.items():
            body = {"id": name, "text": text}
            status, _ = await self._server.call("POST", "/v1/documents?wait=30", body)
            assert status == 200
        # In a collection of its own: what is kept is not outdated by it.
        status, _ = await self._server.call("POST", "/v1/collections", {"name": MEMOS})
        assert status == 201
        for _ in range(2):
            await self._known("lunch")
        assert self.seen["known"]["right"] == 1, self.seen
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        for kind in self.seen:
            self.seen[kind] = Counter()
            self.slowest_s[kind] = 0.0

    def __repr__(self) -> str:
        counts = {kind: dict(found) for kind, found in self.seen.items()}
        return f"<Clients {counts}, refusals {dict(self.refusals)}, wrong {self.wrong}>"

    def outcomes(self, *kinds: str) -> set[str]:
        """Return what has become of requests of these kinds."""
        return {outcome for kind in kinds for outcome in self.seen[kind]}

    async def load(self, stop: asyncio.Event) -> None:
        """Ask at a steady rate, whether or not answers come, until ``stop``."""
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                self._count += 1
                group.create_task(self._ask(self._count))
                await asyncio.sleep(1 / RATE_PER_S)

    async def recover(self) -> float:
        """Return after how many seconds a search is whole again and a document taken."""
        start = time.monotonic()
        async with asyncio.timeout(60):
            for kind in ("search", "upload"):
                while True:
                    before = self.seen[kind]["right"]
                    self._count += 1
                    await self._measured(kind, self._count)
                    if self.seen[kind]["right"] > before:
                        break
                    await asyncio.sleep(0.02)
        return time.monotonic() - start

    async def missing(self) -> list[str]:
        """Return which documents that were taken never become searchable."""
        missing = []
        for name in self._accepted:
            async with asyncio.timeout(60):
                while True:
                    status, found = await self._server.call(
                        "GET", f"/v1/documents/{name}?collection={MEMOS}"
                    )
                    if status != 200 or found["state"] in ("ready", "failed"):
                        break
                    await asyncio.sleep(0.05)
            if status != 200 or found["state"] != "ready":
                missing.append(name)
        return missing

    async def _ask(self, number: int) -> None:
        await self._measured(KINDS[number % len(KINDS)], number)

    async def _measured(self, kind: str, number: int) -> None:
        topic = list(FACTS)[number % len(FACTS)]
        start = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                if kind == "upload":
                    await self._upload(number)
                elif kind == "known":
                    await self._known("lunch")
                else:
                    await self._new(kind, topic, number)
        except (TimeoutError, aiohttp.ClientError, ValueError):
            self.seen[kind]["lost"] += 1
        self.slowest_s[kind] = max(self.slowest_s[kind], time.monotonic() - start)

    async def _new(self, kind: str, topic: str, number: int) -> None:
        """Ask what nobody has asked before."""
        question = {"query": f"{QUESTIONS[topic]} {number}", "timeout": 10}
        status, answer = await self._server.call("POST", f"/v1/{kind}", question)
        if self._refused(kind, status, answer):
            return
        found = answer["results"] if kind == "search" else answer["citations"]
        right = bool(found) and found[0]["text"] == FACTS[topic]
        if right and kind == "query":
            right = FACTS[topic][:-1] in answer["answer"]
        if not right:
            self.wrong.append(answer)
        whole = "degraded" if "degraded" in answer else "right"
        self.seen[kind][whole if right else "wrong"] += 1

    async def _known(self, topic: str) -> None:
        """Ask what is kept."""
        status, answer = await self._server.call("POST", "/v1/query", {"query": QUESTIONS[topic]})
        if self._refused("known", status, answer):
            return
        right = FACTS[topic][:-1] in answer["answer"] and "degraded" not in answer
        outcome = "right" if answer["cache"] == "hit" else "computed"
        self.seen["known"][outcome if right else "wrong"] += 1

    async def _upload(self, number: int) -> None:
        body = {"id": f"memo-{number}", "collection": MEMOS, "text": "A memo."}
        status, answer = await self._server.call("POST", "/v1/documents", body)
        if not self._refused("upload", status, answer):
            self._accepted.append(body["id"])
            self.seen["upload"]["right"] += 1

    def _refused(self, kind: str, status: int, answer: Any) -> bool:
        """Count a refusal, which has to be a clear one."""
        if status in (200, 202):
            return False
        clear = status in (503, 504) and answer["error"]["code"] in REFUSALS
        self.seen[kind][f"refused {status}" if clear else "lost"] += 1
        self.refusals[f"{kind}: {answer['error']['code']}"] += 1
        return True
