"""Markdown by markdown-it: a section for each heading, its text as written."""

from __future__ import annotations

import re
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import clean, decode, heading_path

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)\n", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)


def read(data: bytes, name: str) -> ReadDocument:
    """Cut at headings; the title is the front matter's or the first heading of level 1."""
    text = clean(decode(data, name))
    title = None
    if front := _FRONT_MATTER.match(text):
        if found := _TITLE.search(front[1]):
            title = found[1].strip().strip("\"'") or None
        text = text[front.end() :]
    lines = text.split("\n")
    sections: list[Section] = []
    headings: dict[int, str] = {}
    path: str | None = None
    start = 0
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for token, inline in pairwise(tokens):
        if token.type != "heading_open" or token.map is None or token.level != 0:
            continue
        first, after = token.map
        _add(sections, lines[start:first], path)
        level = int(token.tag[1])
        heading = _plain(inline)
        path = heading_path(headings, level, heading)
        title = title or (heading if level == 1 else None)
        start = after
    _add(sections, lines[start:], path)
    return ReadDocument(tuple(sections), title)


def _add(sections: list[Section], lines: list[str], path: str | None) -> None:
    text = "\n".join(lines).strip("\n")
    if text.strip():
        sections.append(Section(text, heading=path))


def _plain(inline: Token) -> str:
    """Return a heading's text without emphasis, code marks and link targets."""
    parts = [" " if part.type.endswith("break") else part.content for part in inline.children or []]
    return " ".join("".join(parts).split())
