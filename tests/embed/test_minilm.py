"""The real model on this CPU."""

from __future__ import annotations

import numpy as np
import pytest

from ragserve.embed.minilm import DIMENSIONS, MiniLM


@pytest.mark.parametrize("tiles", [False, True])
def test_minilm_knows_what_texts_mean(monkeypatch: pytest.MonkeyPatch, tiles: bool) -> None:
    """Unit rows; related sentences are nearer; neither company nor excess length changes a row."""
    monkeypatch.setattr("ragserve.embed.minilm._has_tiles", lambda: tiles)
    model = MiniLM(threads=1)
    texts = [
        "How do I reset my password?",
        "Steps to recover a forgotten login",
        "The recipe needs two ripe bananas",
        "",
        "東京",
        "word " * 5000,
        *(f"filler sentence number {n} of different length {'x ' * n}" for n in range(20)),
    ]
    together = model.encode(texts)
    assert together.shape == (len(texts), DIMENSIONS)
    assert together.dtype == np.float32
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-4)
    question, related, unrelated = together[:3]
    assert float(question @ related) > 0.4 > 0.2 > float(question @ unrelated)
    for text, row in zip(texts, together, strict=True):
        assert model.encode([text])[0] == pytest.approx(row, abs=1e-3)
    cut = model.encode(["word " * 254])[0]
    assert together[5] == pytest.approx(cut, abs=1e-3)
