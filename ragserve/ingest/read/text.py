"""Bytes to clean text: encodings, line ends, characters that cannot be stored."""

from __future__ import annotations

import re
import unicodedata

from ragserve.errors import UnreadableDocument

BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SAMPLE_BYTES = 64 * 1024
"""Enough to tell an encoding; the detector's time grows with it."""

# Everything below a space but tab and newline, DEL, the C1 range, soft hyphens, zero-width
# spaces, the byte order mark, surrogates.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\ufeff\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")


def decode(data: bytes, name: str) -> str:
    """Return text: by its byte order mark, as UTF-8, or by detection."""
    for bom, encoding in BOMS.items():
        if data.startswith(bom):
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(data[:SAMPLE_BYTES]).best()
    if best is None:
        raise UnreadableDocument(f"{name}: no encoding fits the text")
    return data.decode(best.encoding, errors="replace")


def clean(text: str) -> str:
    """Return text in NFC, with line feeds only, without what no reader sees."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x0c", "\n")
    text = _UNWANTED.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return _BLANK_LINES.sub("\n\n", text).strip("\n")


def heading_path(headings: dict[int, str], level: int, heading: str) -> str:
    """Note ``heading`` at ``level`` in ``headings`` and return the path to it."""
    for deeper in [known for known in headings if known >= level]:
        del headings[deeper]
    headings[level] = " ".join(heading.split())
    return " > ".join(headings[known] for known in sorted(headings) if headings[known])
