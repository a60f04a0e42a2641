"""A citation leads to the passage that an answer was made from."""

from __future__ import annotations

import msgspec

from ragserve.generate.answer import cite
from tests.generate.samples import passage


def test_a_citation_shows_its_place() -> None:
    """A citation has the passage's text, score and place; what is not known is left out."""
    shown = cite(4, passage("Text.", number=2, title="T", url="http://x/", page=3, heading="H"))
    assert msgspec.to_builtins(shown) == {
        "index": 4,
        "document_id": "doc-2",
        "chunk_id": "2",
        "title": "T",
        "score": 0.5,
        "text": "Text.",
        "url": "http://x/",
        "page": 3,
        "heading": "H",
    }
    bare = msgspec.to_builtins(cite(1, passage("Text.")))
    assert bare.keys() == {"index", "document_id", "chunk_id", "title", "score", "text"}
