"""The model of words: the same everywhere, always."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragserve.embed.hashing import HashingModel


@given(texts=st.lists(st.text(max_size=50), max_size=5))
def test_any_text_has_a_unit_vector(texts: list[str]) -> None:
    """Whatever the text, also none at all, its row has length 1."""
    vectors = HashingModel().encode(texts)
    assert vectors.shape == (len(texts), 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)


def test_vectors_count_words_and_nothing_else() -> None:
    """Case, order and punctuation do not matter, words do."""
    one, same, other = HashingModel().encode(["Red apple!", "apple, red", "green pear"])
    assert np.array_equal(one, same)
    assert float(one @ other) < 0.5


def test_vectors_are_the_same_in_every_process() -> None:
    """A stored vector still fits after a restart: no seed of the process enters."""
    (vector,) = HashingModel().encode(["red"])
    # CRC-32 of "red" is 4200685455: bucket 4200685455 % 384, positive as the highest bit is set.
    assert vector.nonzero()[0].tolist() == [15]
    assert vector[15] == 1.0
