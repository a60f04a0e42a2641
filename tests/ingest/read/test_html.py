"""HTML: what a browser shows, without what surrounds it."""

from __future__ import annotations

import pytest

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section
from ragserve.ingest.read.html import read


def text(markup: str) -> str:
    """Return the text of a page without headings."""
    (section,) = read(markup.encode(), "a.html").sections
    assert section.heading is None
    return section.text


def test_headings_make_sections() -> None:
    """A section for each heading with text below it, its path above; the title is the head's."""
    page = b"<title> My\n page </title><p>before<h1>A</h1>x<h3>B <em>b</em></h3>y<h2>C</h2>z"
    document = read(page, "a.html")
    assert document.title == "My page"
    assert document.sections == (
        Section("before"),
        Section("x", heading="A"),
        Section("y", heading="A > B b"),
        Section("z", heading="A > C"),
    )


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<p>a  <b> b</b>\n c<i>d</i>.</p>", "a b cd."),
        ("<p>a<br>b</p><p>c</p>\n\n<div>d</div><div>e</div>", "a\nb\n\nc\n\nd\ne"),
        ("<ul>\n<li>a</li>\n<li> </li><li><p>b</p></li></ul>", "- a\n- b"),
        ("<pre>if x:\n    y  z</pre>", "if x:\n    y  z"),
        (
            "<table><tr><th>A</th><th>B</th></tr>\n<tr><td><p>1</p><p>2</p></td><td>3</td></tr>"
            "</table>",
            "A | B\n1 2 | 3",
        ),
        ("<table><tr><td><ul><li>a<li>b</ul></td></tr></table>", "- a\n- b"),
        ("<dl><dt>t<dd>d</dl>", "t\nd"),
        ("a<?php echo 1 ?>b<!-- c -->d<svg><text>no</text></svg>e", "abde"),
        ("&lt;p&gt; &amp; 5&nbsp;%", "<p> & 5 %"),
        ("a&#1;<script>x</script>b&#1;c", "abc"),
        ("<form><p>whole page</p><button>no</button></form>", "whole page"),
    ],
)
def test_white_space_and_blocks(markup: str, expected: str) -> None:
    """White space folds except in pre; paragraphs, items and rows keep their lines."""
    assert text(markup) == expected


def test_what_surrounds_the_text_is_dropped() -> None:
    """Scripts, styles, navigation, footers and templates are no text."""
    page = "<nav>n</nav><style>s</style><script>j</script><template>t</template><p>x<footer>f"
    assert text(page) == "x"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>charset ü".encode(), "charset ü"),
        ("<p>Grüße".encode("cp1252"), "Grüße"),
        ('<meta charset="shift_jis"><p>会議'.encode("shift_jis"), "会議"),
        ('<meta charset="iso-8859-1"><p>12 €'.encode("cp1252"), "12 €"),
        ('<meta charset="utf-8"><p>Grüße'.encode("cp1252"), "Grüße"),
        ('<meta charset="nonsense"><p>ü'.encode(), "ü"),
        ('<?xml version="1.0" encoding="koi8-r"?><html><p>да'.encode("koi8-r"), "да"),
        ("<p>会議".encode("utf-16"), "会議"),
    ],
)
def test_encodings(page: bytes, expected: str) -> None:
    """The page's own word counts, unless it is unknown or wrong; without one the bytes tell."""
    assert read(page, "a.html").sections == (Section(expected),)


def test_deep_nesting() -> None:
    """Two thousand levels are read; where the parser gives up, so do we."""
    assert text("<div>" * 2000 + "deep") == "deep"
    with pytest.raises(UnreadableDocument) as refused:
        read(b"<p>start" + b"<div>" * 3000 + b"deep", "a.html")
    assert refused.value.message == "a.html: elements nested deeper than the parser goes"
