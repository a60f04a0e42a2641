"""What BM25 has to say in a hybrid, as a number between 0 and 1.

A hybrid score is ``w × cosine + (1 − w) × trust × lexical``. Raw BM25 scores mean nothing across
questions, so they are taken relative to the best hit, and above the last one: a passage just
inside the cut then scores like one just outside. ``trust`` looks at how steeply the scores fall.
If ten passages match about equally well, the words do not tell them apart, and BM25 loses its
voice; this is what keeps a hybrid from being worse than the vectors alone where words fail.
Measured on two collections with judgements; see bench/retrieval.py.
"""

from __future__ import annotations

from collections.abc import Sequence

CANDIDATES = 100
"""How many passages each ranking contributes. The cut enters the scores: tuned together."""
STEEP = 0.4
"""A fall by this share from the first to the tenth hit earns full trust."""
TENTH = 9


def lexical_scores(hits: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return ``hits`` (id, BM25 score, best first) with scores between 0 and 1."""
    if not hits:
        return []
    best = hits[0][1]
    cut = hits[CANDIDATES - 1][1] if len(hits) >= CANDIDATES else 0.0
    if best <= cut:
        return [(identity, 0.0) for identity, _ in hits]
    tenth = hits[TENTH][1] if len(hits) > TENTH else 0.0
    trust = min(1.0, (1.0 - tenth / best) / STEEP)
    return [(identity, trust * max(0.0, score - cut) / (best - cut)) for identity, score in hits]
