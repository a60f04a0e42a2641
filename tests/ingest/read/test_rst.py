"""reStructuredText: sections, and nothing from outside the document."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import Section, read_document
from ragserve.ingest.read.rst import read

PAGE = b"""
=====
Guide
=====

.. hidden comment

Read |what| first.

.. |what| replace:: this page

Part
====

- one
- two

  more

==== ====
A    B
==== ====
1    2
==== ====

Detail
------

Code::

    x = 1

Other
=====

.. note:: Mind the gap.
"""


def test_titles_make_sections() -> None:
    """A section for each title, its path above; lists and tables are lines."""
    document = read(PAGE, "a.rst")
    assert document.title == "Guide"
    assert document.sections == (
        Section("Read this page first.", heading="Guide"),
        Section("- one\n- two\nmore\n\nA | B\n1 | 2", heading="Guide > Part"),
        Section("Code:\n\nx = 1", heading="Guide > Part > Detail"),
        Section("Mind the gap.", heading="Guide > Other"),
    )


def test_directives_read_no_files(tmp_path: Path) -> None:
    """include, raw and csv-table bring nothing in, and what is around them stays."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n", encoding="utf-8")
    text = (
        f"before\n\n.. include:: {secret}\n\n.. literalinclude:: {secret}\n\n"
        f".. raw:: html\n   :file: {secret}\n\n.. raw:: html\n\n   <b>secret</b>\n\n"
        f".. csv-table:: t\n   :file: {secret}\n\n.. raw:: html\n   :url: file://{secret}\n\nafter\n"
    )
    assert read(text.encode(), "a.rst").sections == (Section("before\n\nafter"),)


def test_broken_markup_is_still_text(capfd: pytest.CaptureFixture[str]) -> None:
    """Errors in the markup leave the rest readable and print nothing."""
    (section,) = read(b"Ti\n=\n\n*open `x\n\n.. nonsense:: y\n\nend\n", "a.rst").sections
    assert section.text.endswith("end")
    assert capfd.readouterr() == ("", "")


def test_substitutions_do_not_explode() -> None:
    """Substitutions of substitutions stop growing at a limit."""
    lines = [f".. |a{n}| replace:: {f'|a{n - 1}| ' * 10}" for n in range(1, 12)]
    text = "\n".join([".. |a0| replace:: lol", *lines, "", "x |a11|"])
    document = read_document(text.encode(), "a.rst")
    assert len(document.sections[0].text) < 100_000


def test_limits() -> None:
    """Lines and nesting beyond what docutils takes are refused, not dropped."""
    with pytest.raises(UnreadableDocument) as refused:
        read(b"w" * 20_001, "a.rst")
    assert refused.value.message == "a.rst: a line of 20001 characters, the limit is 20000"
    deep = "".join(" " * n + "- x\n\n" for n in range(0, 600, 2))
    with pytest.raises(UnreadableDocument, match=r"^a\.rst: unreadable reStructuredText: "):
        read(deep.encode(), "a.rst")
