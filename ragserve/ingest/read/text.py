"""Bytes to clean text: encodings, line ends, characters that cannot be stored."""

from __future__ import annotations

import re
import unicodedata

from ragserve.errors import UnreadableDocument

BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
SAMPLE_BYTES = 64 * 1024
"""Enough to tell an encoding; the detector's time grows with it."""

# PowerPoint breaks lines with a vertical tab, mainframes with U+0085.
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Everything below a space but tab and newline, DEL, the C1 range, soft hyphens, zero-width
# spaces, the byte order mark, surrogates.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\ufeff\ud800-\udfff]")
_WESTERN = frozenset("äöüßÄÖÜéèêëàâáåçñíîïóòôøúæÉÈÀÅÆØÇÑÓÁÍÚ“”„‘’‚–—…€«»°§·£©®™½´¿¡\xa0")  # noqa: RUF001
_FOREIGN_RUN = re.compile("[\xc0-\xff]{3}")  # Cyrillic or Greek words, in the wrong alphabet
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
    if _damaged_utf8(text := data.decode("utf-8", errors="replace")):
        return text
    if _western(text := data.decode("cp1252", errors="replace")):
        return text
    from charset_normalizer import from_bytes

    best = from_bytes(data[:SAMPLE_BYTES]).best()
    if best is None:
        raise UnreadableDocument(f"{name}: no encoding fits the text")
    return data.decode(best.encoding, errors="replace")


def _damaged_utf8(text: str) -> bool:
    """Say whether almost all of it was UTF-8; bytes of another encoding hardly ever are."""
    broken = text.count("\ufffd")
    whole = sum(character > "\x7f" for character in text) - broken
    return broken * 10 <= whole


def _western(text: str) -> bool:
    """Say whether it reads as a western language, of which short texts show a detector too little.

    Letters that Hungarian, Czech or Polish would have at the same code are left to the detector.
    """
    others = {character for character in text if character > "\x7f"}
    return others <= _WESTERN and not _FOREIGN_RUN.search(text)


def clean(text: str) -> str:
    """Return text in NFC, with line feeds only, without what no reader sees."""
    text = _LINE_ENDS.sub("\n", text)
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
