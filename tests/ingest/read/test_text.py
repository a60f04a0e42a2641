"""Text: every encoding people still have, and nothing that cannot be stored."""

from __future__ import annotations

import pytest

from ragserve.errors import UnreadableDocument
from ragserve.ingest.read import read_document
from ragserve.ingest.read.text import clean, decode, heading_path

ENCODED = [
    ("Grüße aus Köln – 12 €", "cp1252"),
    ("Größe: 5 m", "cp1252"),
    ("Café à la carte", "cp1252"),
    ("Собрание начнётся в три часа, приходите вовремя.", "cp1251"),
    ("Zażółć gęślą jaźń, proszę o punktualność", "cp1250"),
    ("これは日本語の文章です。会議は三時に始まります。", "shift_jis"),
    ("会议在三点开始。食堂位于三号楼一层。", "gb18030"),
    ("naïve 会議", "utf-8"),
    ("naïve 会議", "utf-8-sig"),
    ("naïve 会議", "utf-16"),
]


@pytest.mark.parametrize(("text", "encoding"), ENCODED, ids=[e + t[:3] for t, e in ENCODED])
def test_encodings_are_told(text: str, encoding: str) -> None:
    """Byte order marks, UTF-8 and the encodings of before it are read as they were written."""
    assert clean(decode(text.encode(encoding), "a.txt")) == text


def test_utf_16_in_both_byte_orders() -> None:
    """A byte order mark decides the order of bytes."""
    for mark, encoding in [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]:
        document = read_document(mark + "Maß".encode(encoding), "a.txt")
        assert document.sections[0].text == "Maß"


def test_one_bad_byte_does_not_spoil_utf_8() -> None:
    """Damaged UTF-8 keeps its other letters."""
    data = ("Grüße " * 10).encode() + b"\xff!"
    assert decode(data, "a.txt") == "Grüße " * 10 + "\ufffd!"


def test_bytes_of_no_encoding_are_refused() -> None:
    """What cannot be decoded is named."""
    data = bytes(range(128, 256)) * 4
    with pytest.raises(UnreadableDocument) as refused:
        decode(data, "noise.txt")
    assert refused.value.message == "noise.txt: no encoding fits the text"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g", "a\nb\nc\nd\ne\nf\ng"),
        ("a\x00b\x08c\x7fd\x9f", "abcd"),
        ("a\ud800b\udfffc", "abc"),
        ("soft\xadware\u200b \ufeffx", "software x"),
        ("Cafe\u0301", "Café"),
        ("\n\na\n\n\n \t\n\nb\n\n", "a\n\nb"),
        ("  indented\n\tkept", "  indented\n\tkept"),
    ],
    ids=["line ends", "control", "surrogates", "invisible", "composed", "blank lines", "indents"],
)
def test_clean(text: str, cleaned: str) -> None:
    """Line ends are line feeds, letters are composed, what nobody sees is gone."""
    assert clean(text) == cleaned


def test_heading_path() -> None:
    """A heading ends those at its level and below; levels may be left out."""
    headings: dict[int, str] = {}
    paths = [heading_path(headings, *step) for step in [(1, "A"), (3, "B\n b"), (2, "C"), (1, "D")]]
    assert paths == ["A", "A > B b", "A > C", "D"]
