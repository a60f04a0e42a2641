"""Markdown: cut at headings, otherwise as written."""

from __future__ import annotations

from ragserve.ingest.read import Section
from ragserve.ingest.read.markdown import read

PAGE = b"""Intro

# Guide to `max_size` *now* [here](u)

First.

### Deep
- item
  # no heading

Set
---
Last.

```
# no heading
```
"""


def test_headings_make_sections() -> None:
    """A section for each heading of the page itself; its path is plain text."""
    document = read(PAGE, "a.md")
    top = "Guide to max_size now here"
    assert document.title == top
    assert document.sections == (
        Section("Intro"),
        Section("First.", heading=top),
        Section("- item\n  # no heading", heading=f"{top} > Deep"),
        Section("Last.\n\n```\n# no heading\n```", heading=f"{top} > Set"),
    )


def test_front_matter_gives_the_title() -> None:
    """The title of the front matter goes before a heading; the rest of it is no text."""
    document = read(b"---\r\ntitle: 'T: x'\r\ntags: [a]\r\n---\r\n# H\r\nbody", "a.md")
    assert document.title == "T: x"
    assert document.sections == (Section("body", heading="H"),)


def test_without_a_heading_there_is_no_title() -> None:
    """A second-level heading is no title, and a line at the top is no front matter."""
    document = read(b"---\n## H\ntext", "a.md")
    assert document.title is None
    assert document.sections == (Section("---"), Section("text", heading="H"))
