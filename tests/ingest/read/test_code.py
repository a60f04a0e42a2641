"""Source code: one section, its indentation kept."""

from __future__ import annotations

import pytest

from ragserve.ingest.read import Section, read_document


@pytest.mark.parametrize("name", ["a.py", "a.yaml", "a.sql", "a.go"])
def test_code_is_kept(name: str) -> None:
    """Lines and indentation stay; line ends are line feeds."""
    data = b"def f():\r\n\treturn 1\r\n\r\n    x\r\n"
    document = read_document(data, name)
    assert document.title is None
    assert document.sections == (Section("def f():\n\treturn 1\n\n    x"),)
