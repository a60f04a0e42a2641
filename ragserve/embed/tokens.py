"""The tokenizer of all-MiniLM-L6-v2 (Apache-2.0), which also measures chunks and prompts.

The file comes from the model's repository; sha256
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources import files

from tokenizers import Tokenizer

RECURRING = 2000
RECURRING_CHARACTERS = 4000
"""Passages are shorter; with so many of them this cache holds 8 MB of letters at most."""

# The library's own threads would compete with the model's, and do not survive a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def load_tokenizer() -> Tokenizer:
    """Return a tokenizer of its own, without truncation or padding."""
    data = files("ragserve.embed").joinpath("tokenizer.json").read_bytes()
    tokenizer = Tokenizer.from_buffer(data)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@lru_cache(1)
def shared_tokenizer() -> Tokenizer:
    """Return the tokenizer that counts tokens; its settings must not be changed."""
    return load_tokenizer()


def count_tokens(text: str) -> int:
    """Return the number of word pieces, an estimate for other models' tokens."""
    return len(shared_tokenizer().encode(text, add_special_tokens=False).ids)


def count_recurring(text: str) -> int:
    """Return the same for texts that come again, such as passages, which are counted once.

    Counting those of one prompt takes 2 ms, which hold up everything else on the loop.
    """
    return _remembered(text) if len(text) <= RECURRING_CHARACTERS else count_tokens(text)


_remembered = lru_cache(RECURRING)(count_tokens)
