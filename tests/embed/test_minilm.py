"""The real model on this CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ragserve.embed.minilm import DIMENSIONS, MiniLM

GROWTH = """
import psutil
from ragserve.embed.minilm import MiniLM

model = MiniLM(threads=1)
model.encode(["x " * 250] * 2)
before = psutil.Process().memory_info().rss
for texts in (1, 2):
    for length in range(1, 250, 8):
        model.encode(["x " * length] * texts)
print(psutil.Process().memory_info().rss - before)
"""
"""Bytes that a process grows by for 64 shapes of input, after the largest."""


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


def test_kernels_of_shapes_that_were_met_are_not_all_kept() -> None:
    """With what oneDNN keeps when it is not told otherwise, the process grows to a multiple."""
    assert 1.5 * growth() < growth(ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024")


def growth(**environ: str) -> int:
    """Return the bytes by which a process grows."""
    run = [sys.executable, "-c", GROWTH]
    own = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN_")}
    done = subprocess.run(
        run, env={**own, **environ}, check=True, capture_output=True, text=True, timeout=300
    )
    return int(done.stdout)
