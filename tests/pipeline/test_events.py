"""What is kept of an answer in the making, for those who join late."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ragserve.pipeline.events import Event, Sources, Transcript, words
from ragserve.schema import Citation

SOURCES = Sources([Citation(1, "office", "1", "Office guide", 0.9, "Lunch is at noon.")])
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def text_of(event: Event) -> str:
    assert isinstance(event, bytes)
    return msgspec.json.decode(b'"%b"' % event, type=str)


@given(st.lists(WORDS, min_size=1))
def test_words_become_one_piece(said: list[str]) -> None:
    """Whatever the words, quotes and line ends in them: their JSON joined says them all."""
    transcript = Transcript()
    transcript.append(SOURCES)
    for word in said:
        transcript.append(words(word))
    sources, piece = transcript
    assert sources is SOURCES
    assert text_of(piece) == "".join(said)


def test_sources_keep_their_place() -> None:
    """Sources that are told again, in place of words that nobody heard, are told in order."""
    transcript = Transcript()
    for event in (SOURCES, SOURCES, words("At"), words(" noon.")):
        transcript.append(event)
    assert [isinstance(event, Sources) for event in transcript] == [True, True, False]
    assert (len(transcript), repr(transcript)) == (3, "<Transcript 3 events>")
    transcript.clear()
    assert not list(transcript)


def test_what_was_heard_does_not_change() -> None:
    """A late joiner's piece stays as it was, though more words follow."""
    transcript = Transcript()
    transcript.append(words("At"))
    (heard,) = transcript
    transcript.append(words(" noon."))
    assert text_of(heard) == "At"


def test_words_may_be_kept_elsewhere() -> None:
    """Whoever joins late is told what is there by then; what follows is another piece."""
    transcript = Transcript()
    said = bytearray(b"At")
    transcript.append(said)
    assert [*transcript] == [b"At"]
    said += b" noon."
    transcript.append(words(" Or later."))
    assert [*transcript] == [b"At noon. Or later."]
    transcript.append(SOURCES)
    transcript.append(words("No."))
    assert [*transcript] == [b"At noon. Or later.", SOURCES, b"No."]
