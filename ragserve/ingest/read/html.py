"""HTML by lxml: headings, paragraphs, lists and tables, without scripts and navigation."""

from __future__ import annotations

from lxml import etree
from lxml import html as lxml_html

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read.document import ReadDocument, Section
from ragserve.ingest.read.text import BOMS, clean, heading_path

DROPPED = tuple("script style noscript template nav footer svg iframe form button select".split())
BLOCKS = frozenset(
    "p div section article main header aside ul ol dl dd dt table tr pre blockquote figure"
    " figcaption address details summary hr br body caption thead tbody tfoot".split()
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}


def read(data: bytes, name: str) -> ReadDocument:
    """Cut at headings."""
    parser = lxml_html.HTMLParser(
        encoding=_encoding(data), no_network=True, huge_tree=False, remove_comments=True
    )
    try:
        root = lxml_html.document_fromstring(data, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise UnreadableDocument(f"{name}: unreadable HTML: {error}") from error
    title = " ".join(clean(root.findtext(".//title") or "").split()) or None
    for element in root.xpath("//" + "|//".join([*DROPPED, "head"])):
        element.drop_tree()
    sections = _Sections()
    body = root.find("body")
    sections.walk(body if body is not None else root)
    sections.flush()
    return ReadDocument(tuple(sections.done), title)


def _encoding(data: bytes) -> str | None:
    """Return an encoding that lxml would not find by itself; None leaves it to the page's meta."""
    if data.startswith(tuple(BOMS)):
        return None
    if b"charset" in data[:2048].lower():
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "utf-8"


class _Sections:
    """Collects text between headings."""

    def __init__(self) -> None:
        self.done: list[Section] = []
        self._parts: list[str] = []
        self._headings: dict[int, str] = {}
        self._path: str | None = None

    def walk(self, element: lxml_html.HtmlElement) -> None:
        """Add an element's text; iterative, because pages nest deeper than Python recurses."""
        for event, node in etree.iterwalk(element, events=("start", "end")):
            tag = node.tag if isinstance(node.tag, str) else ""
            if event == "start":
                if tag in HEADINGS:
                    self.flush()
                elif tag == "li":
                    self._parts.append("\n- ")
                elif tag in BLOCKS:
                    self._parts.append("\n")
                self._parts.append(_inline(node.text, keep=_in_pre(node)))
            else:
                if tag in HEADINGS:
                    self._heading(HEADINGS[tag])
                elif tag in ("td", "th"):
                    self._parts.append(" | ")
                elif tag in BLOCKS or tag == "li":
                    self._parts.append("\n")
                if node is not element:
                    self._parts.append(_inline(node.tail, keep=_in_pre(node.getparent())))

    def flush(self) -> None:
        """End the section under way."""
        lines = (line.strip().removesuffix("|").rstrip() for line in self._text().split("\n"))
        text = clean("\n".join(lines)).strip()
        if text:
            self.done.append(Section(text, heading=self._path))
        self._parts.clear()

    def _heading(self, level: int) -> None:
        text = " ".join(clean(self._text()).split())
        self._parts.clear()
        if text:
            self._path = heading_path(self._headings, level, text)

    def _text(self) -> str:
        return "".join(self._parts)


def _in_pre(node: lxml_html.HtmlElement | None) -> bool:
    return node is not None and (
        node.tag == "pre" or next(node.iterancestors("pre"), None) is not None
    )


def _inline(text: str | None, *, keep: bool) -> str:
    """Return text with white space folded, as a browser shows it, unless it is preformatted."""
    if not text:
        return ""
    if keep:
        return text
    folded = " ".join(text.split())
    return f"{' ' if text[0].isspace() else ''}{folded}{' ' if text[-1].isspace() else ''}"
