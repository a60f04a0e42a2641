"""An answer and the passages it cites."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ragserve.schema import Citation, SearchResult, Usage

NO_ANSWER = "The documents do not contain anything relevant to this question."

_MARK = re.compile(r"\s?\[(\d+(?:\s*,\s*\d+)*)\]")


class Answer(msgspec.Struct, frozen=True):
    """``text`` with marks such as ``[2]``, each of which is the index of a citation."""

    text: str
    citations: list[Citation]
    model: str
    usage: Usage = Usage()


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


def resolve_marks(text: str, passages: Sequence[SearchResult]) -> tuple[str, list[Citation]]:
    """Map a model's marks to citations; drop marks of passages that it was not given.

    The passages are numbered from 1 as in the prompt. Lists such as ``[1, 3]`` become ``[1][3]``.
    An answer without any mark cites all passages: they are what it was made from.
    """
    cited: dict[int, None] = {}

    def replace(match: re.Match[str]) -> str:
        numbers = [int(number) for number in match[1].split(",")]
        known = [number for number in numbers if 1 <= number <= len(passages)]
        cited.update(dict.fromkeys(known))
        space = " " if match[0][0].isspace() else ""
        return space + "".join(f"[{number}]" for number in known) if known else ""

    resolved = _MARK.sub(replace, text)
    indexes = sorted(cited) or range(1, len(passages) + 1)
    return resolved, [cite(index, passages[index - 1]) for index in indexes]
