"""What an open connection costs: ``python -m bench.connections --count 10000``.

Opens so many keep-alive connections to each contender, asks once over each, lets them rest, and
reports the memory that each holds (PSS) and the processor time that all of them take while nobody
asks. Then everybody asks again at once: nobody may be turned away.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from bench import cores
from bench.contenders import Contender, Place, Up
from bench.measure import collect_answers, cpu_s
from bench.process import open_files
from bench.results import environment, write
from bench.scenarios import FASTAPI, GIN, RAGSERVE

AT_ONCE = 200
"""Connections that are being opened."""
REST_S = 10.0
TIMEOUT_S = 60.0
SPARE_FILES = 200
REQUEST = b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--dry", action="store_true", help="write no result")
    arguments = parser.parse_args()
    open_files(arguments.count + SPARE_FILES)
    found: dict[str, dict[str, Any]] = {}
    not_run: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="ragserve-bench-") as directory:
        place = Place(cores.SERVERS, Path(directory), Path(directory, "answers.jsonl"))
        collect_answers(place)
        cores.generate()
        for contender in (RAGSERVE, FASTAPI, GIN):
            if reason := contender.missing():
                not_run[contender.name] = reason
                continue
            found[contender.name] = measure(contender, place, arguments.count)
            print(contender.name, found[contender.name], flush=True)
    result = {
        "scenario": "connections",
        "count": arguments.count,
        "environment": environment(),
        "contenders": found,
        "not_run": not_run,
    }
    print(table(result))
    if not arguments.dry:
        print(f"written: {write('connections', result)}")


def measure(contender: Contender, place: Place, count: int) -> dict[str, Any]:
    """Return a contender's figures, with ``count`` connections open."""
    with contender.run(place) as up:
        return uvloop.run(_measure(up, count))


async def _measure(up: Up, count: int) -> dict[str, Any]:
    before_mb = _memory_mb(up)
    opening = asyncio.Semaphore(AT_ONCE)

    async def arrive() -> Client:
        async with opening:
            client = await Client.connect(up.port)
            await client.ask()
            return client

    arrived = await asyncio.gather(*(arrive() for _ in range(count)), return_exceptions=True)
    clients = [one for one in arrived if isinstance(one, Client)]
    await asyncio.sleep(1.0)
    held_mb = _memory_mb(up) - before_mb
    used = cpu_s(up)
    await asyncio.sleep(REST_S)
    idle = (cpu_s(up) - used) / REST_S
    start = time.monotonic()
    asked = await asyncio.gather(*(one.ask() for one in clients), return_exceptions=True)
    seconds = time.monotonic() - start
    for one in clients:
        one.close()
    return {
        "kb_each": round(held_mb * 1024 / count, 2),
        "idle_cpu_percent": round(idle * 100, 2),
        "all_ask_s": round(seconds, 2),
        "errors": count - sum(one is None for one in asked),
    }


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        """Open it."""
        async with asyncio.timeout(TIMEOUT_S):
            return cls(*await asyncio.open_connection("127.0.0.1", port, limit=8192))

    async def ask(self) -> None:
        """Ask and read the answer; raise if it is none."""
        self._writer.write(REQUEST)
        async with asyncio.timeout(TIMEOUT_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head.partition(b"\r\n")[0].decode("latin-1"))

    def close(self) -> None:
        """Close it."""
        self._writer.close()


def _memory_mb(up: Up) -> float:
    return sum(process.memory_mb() for process in up.processes)


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        f"**connections**: {result['count']:,} keep-alive connections, idle, then all at once.",
        "",
        "| | KB each | CPU while idle | all answered after s | errors |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {one['kb_each']:.1f} | {one['idle_cpu_percent']:.1f} %"
        f" | {one['all_ask_s']:.2f} | {one['errors']} |"
        for name, one in result["contenders"].items()
    ]
    lines += [f"| {name} | not run: {why} | | | |" for name, why in result["not_run"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
