"""Clients, half of them with a connection for each request, in the network they are started in.

``python -m tests.ansible.load URL CLIENTS LIMIT_S`` asks until its standard input ends, LIMIT_S
seconds at most, and prints how many answers came with which status, and what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import aiohttp

PAUSE_S = 0.1
TIMEOUT_S = 60.0
PATHS = ("/v1/collections", "/v1/query")


async def load(url: str, clients: int, limit_s: float) -> Counter[str]:
    """Return the number of answers by status, and of failures by kind."""
    seen: Counter[str] = Counter()
    stop = asyncio.Event()

    async def client(number: int) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(force_close=number % 2 == 0)
        async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as session:
            while not stop.is_set():
                for path in PATHS:
                    method, body = ("POST", {"query": "fish"}) if "query" in path else ("GET", None)
                    try:
                        async with session.request(method, path, json=body) as response:
                            await response.read()
                            seen[str(response.status)] += 1
                    except (aiohttp.ClientError, TimeoutError) as error:
                        seen[f"{method} {path}: {type(error).__name__}: {error}"] += 1
                await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(client(number))
        reading = asyncio.to_thread(sys.stdin.read)
        await asyncio.wait([asyncio.create_task(reading)], timeout=limit_s)
        stop.set()
    return seen


if __name__ == "__main__":
    seen = asyncio.run(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.write(json.dumps(seen))
