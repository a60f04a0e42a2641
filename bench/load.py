"""Load on a server, for machines without k6: ``python -m bench.load QUESTIONS --url URL``.

``--users N`` is a closed loop (everybody waits for an answer and thinks before the next question),
``--rate R`` an open one (requests come whether or not the server keeps up). Prints JSON:
requests/s, errors by status, p50/p95/p99/max of latency and of time to the first byte.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from bench.generator import Generator, Measured
from bench.questions import Zipf, read_questions


def requests(
    questions: list[str],
    *,
    host: str,
    path: str,
    fields: dict[str, object],
    zipf: float,
    keys: Sequence[str] = (),
    seed: int = 1,
    fresh: bool = False,
) -> Iterator[bytes]:
    """Yield requests without end, the keys' in turn; with ``fresh`` no two of them ask the same."""
    heads = [f"Authorization: Bearer {key}\r\n" for key in keys] or [""]

    def build(head: str, question: str) -> bytes:
        body = json.dumps({"query": question, **fields}).encode()
        return (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{head}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    built = [] if fresh else [[build(head, one) for one in questions] for head in heads]
    picks = Zipf(len(questions), zipf, seed)
    for number in count():
        pick, turn = picks.pick(), number % len(heads)
        if fresh:
            yield build(heads[turn], f"{questions[pick]} ({seed}-{number})")
        else:
            yield built[turn][pick]


async def run(arguments: argparse.Namespace) -> Measured:
    """Put the load of the command line on the server."""
    url = urlsplit(arguments.url)
    host, port = url.hostname or "127.0.0.1", url.port or 80
    fields = {"collection": arguments.collection, **json.loads(arguments.fields)}
    asked = requests(
        read_questions(arguments.questions)[: arguments.distinct],
        host=f"{host}:{port}",
        path=arguments.path,
        fields=fields,
        zipf=arguments.zipf,
        keys=arguments.key,
        seed=arguments.seed,
        fresh=arguments.fresh,
    )
    generator = Generator(host, port, asked)
    if arguments.rate:
        return await generator.rate(
            arguments.rate,
            connections=arguments.connections,
            warm_up_s=arguments.warm_up,
            seconds=arguments.seconds,
            seed=arguments.seed,
        )
    return await generator.users(
        arguments.users,
        think_s=arguments.think,
        warm_up_s=arguments.warm_up,
        seconds=arguments.seconds,
        seed=arguments.seed,
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("questions", type=Path, help="queries.jsonl")
    made.add_argument("--url", default="http://127.0.0.1:8080")
    made.add_argument("--path", default="/v1/query")
    made.add_argument("--collection", default="default")
    made.add_argument("--fields", default="{}", help="more fields of each request, as JSON")
    made.add_argument("--key", action="append", default=[], help="API key; several take turns")
    made.add_argument("--users", type=int, default=100)
    made.add_argument("--think", type=float, default=0.0, help="mean seconds between questions")
    made.add_argument("--rate", type=float, help="requests/s, instead of users")
    made.add_argument("--connections", type=int, default=256, help="of the open loop")
    made.add_argument("--zipf", type=float, default=1.0, help="exponent of the question mix")
    made.add_argument("--fresh", action="store_true", help="every question is a new one")
    made.add_argument("--distinct", type=int, help="only so many of the questions")
    made.add_argument("--warm-up", type=float, default=3.0, help="seconds")
    made.add_argument("--seconds", type=float, default=10.0)
    made.add_argument("--seed", type=int, default=1)
    return made


def main() -> None:
    """Run from the command line."""
    measured = uvloop.run(run(parser().parse_args()))
    json.dump(measured.report(), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
