"""HTML by lxml: headings, paragraphs, lists and tables, without scripts and navigation."""

from __future__ import annotations

import re

from lxml import etree
from lxml import html as lxml_html

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import BOMS, clean, decode, heading_path

DROPPED = frozenset(
    "head script style noscript template nav footer svg iframe button select textarea".split()
)
LINES = "br div tr dd dt li ul ol caption thead tbody tfoot".split()
BLOCKS = (
    "p section article main header aside form dl table pre blockquote figure figcaption"
    " address details summary hr body".split()
)
BREAKS = {**dict.fromkeys(LINES, 1), **dict.fromkeys(BLOCKS, 2)}
"""Line ends before and after an element."""
HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CHARSET = re.compile(rb"""<(?:meta[^>]+charset|\?xml[^>]+encoding)\s*=\s*["']?([\w.:-]+)""", re.I)
_SPACE = re.compile(r"\s+")
_STRUCTURED = etree.XPath("boolean(.//table|.//ul|.//ol|.//pre|.//h1|.//h2|.//h3|.//h4)")


def read(data: bytes, name: str) -> ReadDocument:
    """Cut at headings."""
    parser = lxml_html.HTMLParser(
        encoding="utf-8", no_network=True, huge_tree=True, remove_comments=True, remove_pis=True
    )
    try:
        root = lxml_html.document_fromstring(_text(data, name).encode(), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise UnreadableDocument(f"{name}: unreadable HTML: {error}") from error
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise UnreadableDocument(f"{name}: elements nested deeper than the parser goes")
    title = " ".join(clean(root.findtext(".//title") or "").split()) or None
    body = root.find("body")
    sections = _Sections()
    sections.walk(body if body is not None else root)
    sections.flush()
    return ReadDocument(tuple(sections.done), title)


def _text(data: bytes, name: str) -> str:
    """Return text by the page's own encoding, unless that is unknown or often said in error."""
    declared = _CHARSET.search(data[:2048])
    if declared is None or data.startswith(tuple(BOMS)):
        return decode(data, name)
    label = declared[1].decode("ascii").lower()
    if label in ("utf-8", "utf8"):
        return decode(data, name)
    # The web's name for cp1252 (WHATWG Encoding).
    codec = "cp1252" if label in ("iso-8859-1", "us-ascii", "latin1") else label
    try:
        return data.decode(codec, errors="replace")
    except (LookupError, UnicodeError):
        return decode(data, name)


class _Sections:
    """Collects text between headings, with white space as a browser shows it."""

    def __init__(self) -> None:
        self.done: list[Section] = []
        self._parts: list[str] = []
        self._line_ends = 2
        self._pre = 0
        self._cell: lxml_html.HtmlElement | None = None
        self._headings: dict[int, str] = {}
        self._path: str | None = None

    def walk(self, element: lxml_html.HtmlElement) -> None:
        """Add an element's text; iterative, because pages nest deeper than Python recurses."""
        walker = etree.iterwalk(element, events=("start", "end"))
        for event, node in walker:
            if event == "start" and node.tag in DROPPED:
                walker.skip_subtree()
            elif event == "start":
                self._start(node, node.tag)
                self._add(node.text)
            else:
                if node.tag not in DROPPED:
                    self._end(node, node.tag)
                if node is not element:
                    self._add(node.tail)

    def flush(self) -> None:
        """End the section under way."""
        lines = (line.rstrip().removesuffix("|").rstrip() for line in self._take().split("\n"))
        text = clean("\n".join(lines)).strip("\n")
        if text.strip():
            self.done.append(Section(text, heading=self._path))

    def _start(self, node: lxml_html.HtmlElement, tag: str) -> None:
        if tag in HEADINGS:
            self.flush()
        self._break(BREAKS.get(tag, 0))
        if tag == "li":
            self._parts.append("- ")
            self._line_ends = 2  # a paragraph in it begins on this line
        elif tag == "pre":
            self._pre += 1
        # Paragraphs in a cell stay on its row's line; a table used for layout keeps its lines.
        elif tag in ("td", "th") and self._cell is None and not _STRUCTURED(node):
            self._cell = node

    def _end(self, node: lxml_html.HtmlElement, tag: str) -> None:
        if node is self._cell:
            self._cell = None
        if tag in HEADINGS:
            self._heading(HEADINGS[tag])
        elif tag == "pre":
            self._pre -= 1
        elif tag == "li" and self._parts[-1:] == ["- "]:
            self._parts.pop()
        elif tag in ("td", "th"):
            self._add(" ")
            self._parts.append("| ")
            self._line_ends = 0
        self._break(BREAKS.get(tag, 0))

    def _add(self, text: str | None) -> None:
        if not text:
            return
        if not self._pre:
            text = _SPACE.sub(" ", text)
            if self._line_ends or self._parts[-1].endswith(" "):
                text = text.lstrip(" ")
        if text:
            self._parts.append(text)
            self._line_ends = 0

    def _break(self, line_ends: int) -> None:
        """End the line, or the paragraph, unless it has just ended."""
        if line_ends and self._cell is not None:
            self._add(" ")
        elif line_ends > self._line_ends:
            self._parts.append("\n" * (line_ends - self._line_ends))
            self._line_ends = line_ends

    def _heading(self, level: int) -> None:
        text = " ".join(clean(self._take()).split())
        if text:
            self._path = heading_path(self._headings, level, text)

    def _take(self) -> str:
        text = "".join(self._parts)
        self._parts.clear()
        self._line_ends = 2
        return text
