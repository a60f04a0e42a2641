"""Retrieval quality and ingest speed over the HTTP API, on a collection with judgements.

``python -m bench.retrieval DIR --url URL`` takes a directory in BEIR's layout (corpus.jsonl with
_id, title and text; queries.jsonl; qrels.tsv), ingests every document whole into a collection of
its own, searches with all questions in all modes and prints nDCG@10. A document's score is its
best passage's. nDCG has gain 2^relevance − 1 over the first ten, averaged over the questions that
have a relevant document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp

MODES = ("dense", "lexical", "hybrid")
BATCH = 200
PASSAGES = 50
"""Passages per search: ten documents with up to five passages each."""
PARALLEL = 8
POLL_S = 0.1
TIMEOUT_S = 1800.0
PAST_THE_CACHE = {"Cache-Control": "no-store"}


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """Return the records of a JSON lines file."""
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def read_qrels(file: Path) -> dict[str, dict[str, int]]:
    """Return relevance by question and document."""
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:
        question, document, score = line.split("\t")
        judged[question][document] = int(score)
    return {question: scores for question, scores in judged.items() if max(scores.values()) > 0}


def ndcg(ranking: list[str], judged: dict[str, int], depth: int = 10) -> float:
    """Return nDCG of a ranking of document ids."""

    def gain(scores: list[int]) -> float:
        return sum((2**score - 1) / math.log2(place + 2) for place, score in enumerate(scores))

    ideal = gain(sorted(judged.values(), reverse=True)[:depth])
    return gain([judged.get(document, 0) for document in ranking[:depth]]) / ideal


async def ingest(
    session: aiohttp.ClientSession, collection: str, corpus: list[dict[str, Any]]
) -> dict[str, float]:
    """Upload the corpus; return documents, chunks and seconds until all was searchable."""
    start = time.monotonic()
    documents = [
        {"id": record["_id"], "title": record.get("title") or None, "text": record["text"]}
        for record in corpus
        if record["text"].strip()
    ]
    for first in range(0, len(documents), BATCH):
        body = {"collection": collection, "documents": documents[first : first + BATCH]}
        async with session.post("v1/documents", json=body) as response:
            response.raise_for_status()
    while True:
        async with session.get(f"v1/collections/{collection}") as response:
            state = await response.json()
        if state["pending"] == 0:
            break
        await asyncio.sleep(POLL_S)
    seconds = time.monotonic() - start
    if state["failed"] or state["documents"] != len(documents):
        raise SystemExit(f"ingest: {state}, expected {len(documents)} documents")
    return {"documents": state["documents"], "chunks": state["chunks"], "seconds": seconds}


async def evaluate(
    session: aiohttp.ClientSession,
    collection: str,
    mode: str,
    questions: dict[str, str],
    judged: dict[str, dict[str, int]],
) -> float:
    """Return the mean nDCG@10 of one mode."""
    slots = asyncio.Semaphore(PARALLEL)

    async def one(question: str) -> float:
        body = {
            "query": questions[question],
            "collection": collection,
            "mode": mode,
            "top_k": PASSAGES,
        }
        async with slots, session.post("v1/search", json=body, headers=PAST_THE_CACHE) as response:
            response.raise_for_status()
            results = (await response.json())["results"]
        ranking = list(dict.fromkeys(result["document_id"] for result in results))
        return ndcg(ranking, judged[question])

    scores = await asyncio.gather(*(one(question) for question in judged))
    return sum(scores) / len(scores)


async def run(directory: Path, url: str, collection: str) -> None:
    """Ingest, evaluate, print."""
    questions = {r["_id"]: r["text"] for r in read_jsonl(directory / "queries.jsonl")}
    judged = read_qrels(directory / "qrels.tsv")
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    async with aiohttp.ClientSession(url.rstrip("/") + "/", timeout=timeout) as session:
        done = await ingest(session, collection, read_jsonl(directory / "corpus.jsonl"))
        print(
            f"{collection}: {done['documents']:.0f} documents, {done['chunks']:.0f} chunks in "
            f"{done['seconds']:.1f} s: {done['documents'] / done['seconds']:.0f} documents/s, "
            f"{done['chunks'] / done['seconds']:.0f} chunks/s"
        )
        print(f"| {collection}, {len(judged)} questions | nDCG@10 |\n|---|---|")
        for mode in MODES:
            score = await evaluate(session, collection, mode, questions, judged)
            print(f"| {mode} | {score:.4f} |")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("directory", type=Path, help="corpus.jsonl, queries.jsonl, qrels.tsv")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--collection", help="default: the directory's name")
    arguments = parser.parse_args()
    name = arguments.collection or arguments.directory.resolve().name
    asyncio.run(run(arguments.directory, arguments.url, name))


if __name__ == "__main__":
    main()
