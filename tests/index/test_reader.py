"""Reading: questions find their passages, and readers follow the writer's commits."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from ragserve.index import LANGUAGES, CollectionIndex, CollectionWriter
from ragserve.index.layout import value_prefix, value_term
from ragserve.index.reader import QUESTION_TERMS, RECHECK_S
from tests.index.samples import add, found, record, write

# A document's sentence and a word a person may ask for it, inflected where stems are known.
WORDS = {
    "ar": ("الكتاب على الطاولة", "كتاب"),
    "da": ("husene ligger ved havet", "hus"),
    "de": ("Die Häuser stehen am Meer", "Haus"),
    "el": ("τα βιβλία είναι στο τραπέζι", "βιβλία"),
    "en": ("The houses stand by the sea", "house"),
    "es": ("Las casas están junto al mar", "casa"),
    "fi": ("talot ovat meren rannalla", "talo"),
    "fr": ("Les maisons sont au bord de la mer", "maison"),
    "hu": ("a házak a tenger mellett vannak", "ház"),
    "it": ("Le case sono vicino al mare", "casa"),
    "nl": ("De huizen staan aan zee", "huizen"),
    "no": ("husene ligger ved havet", "hus"),
    "pt": ("As casas ficam perto do mar", "casa"),
    "ro": ("casele sunt lângă mare", "casele"),
    "ru": ("Дома стоят рядом", "дом"),
    "sv": ("husen ligger vid havet", "hus"),
    "ta": ("புத்தகம் மேசையில் உள்ளது", "புத்தகம்"),
    "tr": ("evler denizden uzak", "ev"),
    "none": ("The houses stand by the sea", "houses"),
}


def test_every_language_has_a_sample() -> None:
    """No language is offered that nobody tried."""
    assert WORDS.keys() == LANGUAGES.keys()


@pytest.mark.parametrize("language", WORDS)
def test_a_word_finds_its_sentence(tmp_path: Path, language: str) -> None:
    """In every language a word of a sentence finds it, and no other one."""
    sentence, word = WORDS[language]
    write(tmp_path, "xylophone", sentence, language=language)
    assert found(CollectionIndex(tmp_path), word) == [2]


@pytest.mark.parametrize(
    "question",
    ['title:"hello"', "hello -world", '"hello', "hello AND (", "+hello~2 ^3", "he\\llo hello*"],
)
def test_a_question_has_no_syntax(tmp_path: Path, question: str) -> None:
    """Colons, quotes, signs and brackets of a question are words apart, never operators."""
    write(tmp_path, "hello world", "farewell")
    assert found(CollectionIndex(tmp_path), question) == [1]


def test_a_title_counts_more_than_the_text(tmp_path: Path) -> None:
    """Of two passages with the word the one with it in the title comes first."""
    with CollectionWriter(tmp_path, "en") as writer:
        add(writer, 1, "pumps and other things")
        add(writer, 2, "and other things", title="pumps")
        writer.commit(1)
    assert found(CollectionIndex(tmp_path), "pump") == [2, 1]


def test_a_passage_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    """Results show the record to the letter; optional places may be missing."""
    plain = record(1, 'alpha <&> "quoted" 東京', metadata=b'{"a": [1, null]}')
    placed = msgspec.structs.replace(plain, chunk_id="2", url="http://x/", page=7, heading="H")
    with CollectionWriter(tmp_path, "en") as writer:
        writer.add(1, 1, "alpha", plain)
        writer.add(2, 1, "alpha", placed)
        writer.commit(1)
    records = [shown for shown, _ in CollectionIndex(tmp_path).passages(["alpha"], 10)]
    assert sorted(records, key=lambda shown: shown.chunk_id) == [plain, placed]


def test_passages_and_candidates_agree(tmp_path: Path) -> None:
    """Both ways of asking give the same passages with the same scores, within the limit."""
    write(tmp_path, *(f"alpha {'beta ' * n}" for n in range(1, 8)))
    index = CollectionIndex(tmp_path)
    candidates = index.candidates(["beta"], 3)
    passages = [(int(shown.chunk_id), score) for shown, score in index.passages(["beta"], 3)]
    assert passages == candidates
    assert len(candidates) == 3
    assert [score for _, score in candidates] == sorted((s for _, s in candidates), reverse=True)


def test_no_terms_find_nothing(tmp_path: Path) -> None:
    """A question without terms finds nothing, not everything."""
    write(tmp_path, "alpha")
    index = CollectionIndex(tmp_path)
    assert index.candidates([], 10) == []
    assert index.passages([], 10) == []


def test_required_terms_filter_without_a_say_in_the_score(tmp_path: Path) -> None:
    """Each list needs one of its terms, an empty list has none, and scores stay the same."""
    with CollectionWriter(tmp_path, "en") as writer:
        add(writer, 1, "alpha", metadata=b'{"a": 1, "b": "x"}')
        add(writer, 2, "alpha beta", metadata=b'{"a": 2, "b": "x"}')
        add(writer, 3, "alpha beta gamma", metadata=b'{"a": 3}')
        writer.commit(1)
    index = CollectionIndex(tmp_path)
    one, two, x = value_term("a", 1), value_term("a", 2), value_term("b", "x")
    free = dict(index.candidates(["alpha"], 10))
    assert dict(index.candidates(["alpha"], 10, [[one, two]])) == {1: free[1], 2: free[2]}
    assert dict(index.candidates(["alpha"], 10, [[one, two], [x]])) == {1: free[1], 2: free[2]}
    assert dict(index.candidates(["alpha"], 10, [[two], [x]])) == {2: free[2]}
    assert index.candidates(["alpha"], 10, [[x], []]) == []


def test_a_question_as_long_as_a_document_is_cut(tmp_path: Path) -> None:
    """A question of more terms than decide anything is searched by its first ones."""
    write(tmp_path, "w0 w1")
    index = CollectionIndex(tmp_path)
    terms = index.question_terms(" ".join(f"w{n}" for n in range(1000)))
    assert terms == [f"w{n}" for n in range(QUESTION_TERMS)]


def test_a_reader_follows_commits_at_most_so_often(tmp_path: Path) -> None:
    """A commit is seen at the first look after it; looks are RECHECK_S apart."""
    with CollectionWriter(tmp_path, "en") as writer:
        index = CollectionIndex(tmp_path)
        index.refresh(100.0)
        add(writer, 1, "alpha", metadata=b'{"a": 1}')
        assert index.terms_with_prefix(value_prefix("a", 0)) == []
        writer.commit(1)
        index.refresh(100.0 + RECHECK_S / 2)
        assert repr(index) == "<CollectionIndex 0 passages at version 0>"
        index.refresh(100.0 + RECHECK_S * 1.5)
        assert repr(index) == "<CollectionIndex 1 passages at version 1>"
        assert index.terms_with_prefix(value_prefix("a", 0)) == [value_term("a", 1)]


def test_a_commit_while_a_reader_opens_is_not_missed(tmp_path: Path) -> None:
    """A commit at the very moment a reader opens is seen at its next look."""
    with CollectionWriter(tmp_path, "en") as writer:

        class Overtaken(CollectionIndex):
            def _stamp_now(self) -> tuple[int, int]:
                if writer.version == 0:
                    writer.commit(1)
                return super()._stamp_now()

        index = Overtaken(tmp_path)
        index.refresh(100.0)
        assert index.state.version == 1


def test_reading_goes_on_while_the_writer_commits(tmp_path: Path) -> None:
    """Every look sees one commit entire: as many passages as its version says."""
    commits = 25
    with CollectionWriter(tmp_path, "en") as writer:

        def commit_all() -> None:
            for number in range(1, commits + 1):
                add(writer, number, "alpha")
                writer.commit(number)

        index = CollectionIndex(tmp_path)
        thread = threading.Thread(target=commit_all)
        thread.start()
        while thread.is_alive():
            index.refresh(0.0, every_s=0.0)
            seen = index.state.version
            assert len(found(index, "alpha")) == len(index.passages(["alpha"], 100)) == seen
        index.refresh(0.0, every_s=0.0)
        assert index.state.version == index.documents == commits
