"""An answer and the passages it cites."""

from __future__ import annotations

import msgspec

from ragserve.schema import Citation, SearchResult, Usage

NO_ANSWER = "The documents do not contain anything relevant to this question."


class Answer(msgspec.Struct, frozen=True):
    """``text`` with marks such as ``[2]``, each of which is the index of a citation.

    ``complete`` is false for a text that was cut off.
    """

    text: str
    citations: list[Citation]
    model: str
    usage: Usage = Usage()
    complete: bool = True


def cite(index: int, passage: SearchResult) -> Citation:
    """Return the citation of a passage that the answer marks as ``[index]``."""
    return Citation(
        index=index,
        document_id=passage.document_id,
        chunk_id=passage.chunk_id,
        title=passage.title,
        score=passage.score,
        text=passage.text,
        url=passage.url if passage.url is not None else msgspec.UNSET,
        page=passage.page,
        heading=passage.heading,
    )
