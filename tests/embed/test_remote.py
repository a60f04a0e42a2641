"""An embedder elsewhere: its answers are checked, its failures are named."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from ragserve.embed.remote import RemoteEmbedder
from ragserve.errors import ConfigurationError, UpstreamFailed
from ragserve.upstream import upstream
from tests.conftest import configured
from tests.embed.scripted import (
    HANG,
    Reply,
    ScriptedServer,
    Step,
    embeddings,
    scripted,
    vector_of,
)

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause."""
    monkeypatch.setattr(upstream, "PAUSE_S", 0.0)


@asynccontextmanager
async def _opened(
    *script: Step, **settings: object
) -> AsyncIterator[tuple[RemoteEmbedder, ScriptedServer]]:
    async with scripted(*script) as server:
        chosen = {"base_url": server.base_url, "api_key": KEY, "model": "m", **settings}
        config = configured(**{f"embedding__{name}": value for name, value in chosen.items()})
        embedder = await RemoteEmbedder.open(config.embedding)
        try:
            yield embedder, server
        finally:
            await embedder.close()


def _unit(text: str) -> list[float]:
    vector = np.array(vector_of(text))
    return list(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("as_lists", [False, True])
async def test_rows_come_in_the_order_of_the_texts(as_lists: bool) -> None:
    """Base64 or lists, in whatever order: row n is the unit vector of text n."""
    async with _opened(embeddings(as_lists=as_lists)) as (embedder, server):
        vectors = await embedder.embed(["a", "bbb", "cc"])
        assert vectors == pytest.approx(np.array([_unit("a"), _unit("bbb"), _unit("cc")]))
        assert vectors.dtype == np.float32
        assert (embedder.name, embedder.dimensions) == ("m", 4)
        assert server.asked[1] == {
            "model": "m",
            "input": ["a", "bbb", "cc"],
            "encoding_format": "base64",
        }
        assert set(server.paths) == {"/v1/embeddings"}
        assert set(server.keys) == {f"Bearer {KEY}"}


async def test_many_texts_travel_in_batches() -> None:
    """No request is larger than the batch size, and the rows fit together again."""
    texts = ["x" * n for n in range(1, 12)]
    async with _opened(embeddings(), batch_size=4) as (embedder, server):
        vectors = await embedder.embed(texts)
        assert vectors == pytest.approx(np.array([_unit(text) for text in texts]))
        sizes = sorted(len(asked["input"]) for asked in server.asked[1:])
        assert sizes == [3, 4, 4]
        assert (await embedder.embed([])).shape == (0, 4)
        assert len(server.asked) == 4


async def test_a_large_answer_is_read_to_its_end() -> None:
    """An answer of many network packets is read entirely before it is judged."""
    texts = [f"{n}" for n in range(1000)]
    large = embeddings(dimensions=1024)
    async with _opened(large, batch_size=1000) as (embedder, _):
        assert (await embedder.embed(texts)).shape == (1000, 1024)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_passing_failure_is_tried_again(status: int) -> None:
    """After 429 or a server's error the same batch is sent again."""
    async with _opened(embeddings(), Reply({"error": "busy"}, status), embeddings()) as (
        embedder,
        server,
    ):
        assert (await embedder.embed(["a"])).shape == (1, 4)
        assert server.asked[1] == server.asked[2]


async def test_a_lasting_failure_is_named_after_its_attempts() -> None:
    """After the configured tries the error names server, status and answer."""
    down = Reply(b"out of order", 500)
    async with _opened(embeddings(), down, attempts=3) as (embedder, server):
        with pytest.raises(UpstreamFailed) as failed:
            await embedder.embed(["a"])
        assert failed.value.message == (
            f"embedder {server.base_url}/embeddings: status 500: out of order"
        )
        assert len(server.asked) == 1 + 3


async def test_a_refusal_is_not_tried_again() -> None:
    """A request that the server calls wrong is sent once."""
    async with _opened(embeddings(), Reply(b"too long", 400)) as (embedder, server):
        with pytest.raises(UpstreamFailed, match="status 400: too long"):
            await embedder.embed(["a"])
        assert len(server.asked) == 2


async def test_a_server_that_hangs_is_given_up() -> None:
    """A call ends after its timeout, with the server named."""
    async with _opened(embeddings(), HANG, timeout_s=0.05, attempts=1) as (embedder, server):
        with pytest.raises(UpstreamFailed, match=server.base_url):
            await embedder.embed(["a"])
        assert server.hanging.is_set()


def _items(*vectors: object) -> Reply:
    return Reply({"data": [{"index": n, "embedding": v} for n, v in enumerate(vectors)]})


GARBAGE = {
    "no json": Reply(b"<html>"),
    "no utf-8": Reply(b'{"data": [{"index": 0, "embedding": "\xff"}]}'),
    "another shape": Reply({"error": {"message": "no"}}),
    "nothing": Reply(b""),
    "no vectors": Reply({"data": []}),
    "too few": _items([1.0, 0.0, 0.0, 0.0]),
    "too many": _items(*[[1.0, 0.0, 0.0, 0.0]] * 3),
    "unequal": _items([1.0, 0.0, 0.0, 0.0], [1.0]),
    "zero": _items([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
    "null": _items([1.0, 0.0, 0.0, 0.0], None),
    "not finite": _items(*[base64.b64encode(np.full(4, np.nan, "<f4").tobytes()).decode()] * 2),
    "half a number": _items("AAAA", "AAAA"),
    "no base64": _items("\u00e9", "\u00e9"),
    "a wrong dimension": _items([1.0, 0.0], [0.0, 1.0]),
}


@pytest.mark.parametrize("reply", GARBAGE.values(), ids=GARBAGE.keys())
async def test_an_unusable_answer_is_no_vector(reply: Reply) -> None:
    """What is not one finite vector for each text, of the known length, is an upstream error."""
    async with _opened(embeddings(), reply) as (embedder, _):
        with pytest.raises(UpstreamFailed, match=r"^embedder"):
            await embedder.embed(["a", "b"])


async def test_the_dimension_asked_for_is_the_dimension_given() -> None:
    """A configured dimension is asked for, and another one is a configuration error."""
    async with _opened(embeddings(dimensions=8), dimensions=8) as (embedder, server):
        assert embedder.dimensions == 8
        assert server.asked[0]["dimensions"] == 8
    with pytest.raises(ConfigurationError, match="m answers with 4 dimensions; asked for: 8"):
        async with _opened(embeddings(), dimensions=8):
            pass
    with pytest.raises(ConfigurationError, match="4001 dimensions; asked for: its own"):
        async with _opened(embeddings(dimensions=4001)):
            pass
