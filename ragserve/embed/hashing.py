"""Vectors that know words but no meaning: deterministic, free, for tests and benchmarks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

DIMENSIONS = 384
_WORD = re.compile(r"\w+")


class HashingModel:
    """Adds a signed bucket for every word and normalises."""

    name = "hashing-384"
    dimensions = DIMENSIONS

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return an array of shape (texts, 384) with unit rows."""
        vectors = np.zeros((len(texts), DIMENSIONS), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            codes = np.array(
                [zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], np.uint32
            )
            np.add.at(vector, codes % DIMENSIONS, np.where(codes & 0x8000_0000, 1.0, -1.0))
            if not vector.any():
                vector[0] = 1.0
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
