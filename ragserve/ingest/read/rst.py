"""reStructuredText by docutils, without the directives that reach outside the document."""

from __future__ import annotations

from docutils import nodes
from docutils.core import publish_doctree
from docutils.utils import SystemMessage

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import clean, decode, heading_path

LINE_CHARACTERS = 20_000
"""Docutils gives up on a document with a longer line, and on substitutions that grow longer."""
SETTINGS = {
    "line_length_limit": LINE_CHARACTERS,
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 5,
    "warning_stream": False,
    "_disable_config": True,
    "smart_quotes": False,
    "doctitle_xform": False,
}


def read(data: bytes, name: str) -> ReadDocument:
    """Cut at section titles; the title is that of the first section."""
    text = clean(decode(data, name))
    longest = max(map(len, text.split("\n")))
    if longest > LINE_CHARACTERS:
        raise UnreadableDocument(
            f"{name}: a line of {longest} characters, the limit is {LINE_CHARACTERS}"
        )
    try:
        tree = publish_doctree(text, settings_overrides=SETTINGS)
    except (SystemMessage, RecursionError, ValueError, AttributeError, TypeError) as error:
        raise UnreadableDocument(f"{name}: unreadable reStructuredText: {error}") from error
    for node in list(tree.findall(_is_hidden)):
        node.parent.remove(node)
    sections: list[Section] = []
    _collect(tree, 0, {}, None, sections)
    title = next((node.astext() for node in tree.findall(nodes.title)), None)
    return ReadDocument(tuple(sections), title)


def _is_hidden(node: nodes.Node) -> bool:
    hidden = nodes.comment | nodes.system_message | nodes.substitution_definition
    return isinstance(node, hidden)


def _collect(
    node: nodes.Element,
    level: int,
    headings: dict[int, str],
    path: str | None,
    sections: list[Section],
) -> None:
    texts = []
    inner = []
    for child in node.children:
        if isinstance(child, nodes.title):
            path = heading_path(headings, level, child.astext())
        elif isinstance(child, nodes.section):
            inner.append(child)
        else:
            texts.append(_text(child))
    text = clean("\n\n".join(texts)).strip()
    if text:
        sections.append(Section(text, heading=path))
    for section in inner:
        _collect(section, level + 1, headings, path, sections)


def _text(node: nodes.Node) -> str:
    if isinstance(node, nodes.bullet_list | nodes.enumerated_list):
        return "\n".join("- " + item.astext().replace("\n\n", "\n") for item in node.children)
    if isinstance(node, nodes.table):
        rows = node.findall(nodes.row)
        return "\n".join(" | ".join(cell.astext() for cell in row.children) for row in rows)
    text: str = node.astext()
    return text
