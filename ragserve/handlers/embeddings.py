"""Vectors for anybody: the embedder of this server in the shape of OpenAI's API."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from aiohttp import web

from ragserve.embed.tokens import count_tokens, shared_tokenizer
from ragserve.errors import InvalidRequest, TooLarge, UnknownModel
from ragserve.handlers.body import json_response, read_json
from ragserve.handlers.services import SERVICES
from ragserve.openai import Embedding, EmbeddingsRequest, EmbeddingsResponse, EmbeddingsUsage

INPUTS = 2048
"""Texts of one request at most, OpenAI's own limit."""
AT_ONCE = 32
"""Texts embedded at once, so that a long list does not keep questions waiting."""


async def embeddings(request: web.Request) -> web.Response:
    """Turn texts into vectors."""
    services = request.app[SERVICES]
    embedder = services.embedder
    asked = await read_json(request, EmbeddingsRequest)
    if asked.model != embedder.name:
        raise UnknownModel(f"model {asked.model!r} does not exist; this server has {embedder.name}")
    if asked.dimensions not in (None, embedder.dimensions):
        raise InvalidRequest(
            f"dimensions = {asked.dimensions}: {embedder.name} has {embedder.dimensions}",
            param="dimensions",
        )
    local = services.config.embedding.provider != "openai"
    texts = await asyncio.to_thread(texts_of, asked.input, has_tokenizer=local)
    tokens = await asyncio.to_thread(lambda: sum(map(count_tokens, texts)))
    data: list[Embedding] = []
    for first in range(0, len(texts), AT_ONCE):
        for vector in await embedder.embed(texts[first : first + AT_ONCE]):
            data.append(Embedding(len(data), _encoded(vector, asked.encoding_format)))
    return json_response(EmbeddingsResponse(data, embedder.name, EmbeddingsUsage(tokens, tokens)))


def texts_of(given: str | Sequence[str | int | list[int]], *, has_tokenizer: bool) -> list[str]:
    """Return the texts of ``input``: one or several, as they are or as token ids."""
    if isinstance(given, str):
        given = [given]
    elif given and all(isinstance(item, int) for item in given):
        given = [[item for item in given if isinstance(item, int)]]
    if len(given) > INPUTS:
        raise TooLarge(f"input: {len(given)} texts, at most {INPUTS}", param="input")
    if not given:
        raise InvalidRequest("input: there is no text", param="input")
    texts = []
    for number, item in enumerate(given):
        where = f"input[{number}]"
        if isinstance(item, int):
            raise InvalidRequest(f"{where}: token ids and texts are mixed", param="input")
        text = item if isinstance(item, str) else _decoded(item, where, has_tokenizer)
        if not text.strip():
            raise InvalidRequest(f"{where} is empty", param="input")
        texts.append(text)
    return texts


def _decoded(ids: Sequence[int], where: str, has_tokenizer: bool) -> str:
    if not has_tokenizer:
        raise InvalidRequest(f"{where}: this server's embedder takes texts only", param="input")
    tokenizer = shared_tokenizer()
    size = tokenizer.get_vocab_size()
    if wrong := next((number for number in ids if not 0 <= number < size), None):
        raise InvalidRequest(
            f"{where}: {wrong} is no token of this model's tokenizer, which has {size}",
            param="input",
        )
    text: str = tokenizer.decode(list(ids))
    return text


def _encoded(vector: npt.NDArray[np.float32], form: str | None) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = vector.tolist()
    return numbers
