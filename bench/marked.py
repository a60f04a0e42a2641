"""Places in Markdown files that a program fills, between two comments."""

from __future__ import annotations

from pathlib import Path

END = "<!-- end -->"


def filled(text: str, module: str, body: str) -> str:
    """Return ``text`` with ``body`` in the place that ``module`` writes."""
    begin = f"<!-- written by python -m {module} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise SystemExit(f"no place marked {begin} … {END}")
    return f"{before}{begin}\n{body}\n{END}{after}"


def fill(path: Path, module: str, body: str) -> None:
    """Write ``body`` into its place in a file."""
    path.write_text(filled(path.read_text("utf-8"), module, body), encoding="utf-8")
