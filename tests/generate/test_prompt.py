"""The prompt: the best sources within the budget, numbered as the answer will cite them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ragserve.generate.prompt import SYSTEM, build_prompt
from ragserve.schema import SearchResult
from tests.generate.samples import passage, passages


def _words(text: str) -> int:
    return len(text.split())


def _build(
    found: list[SearchResult], budget: int, question: str = "why?"
) -> tuple[str, list[SearchResult]]:
    """Return the user's message and the passages used, with ``budget`` words for sources."""
    fixed = _words(SYSTEM) + _words(question)
    messages, used = build_prompt(question, found, budget_tokens=fixed + budget, count=_words)
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"] == SYSTEM
    return messages[1]["content"], used


def test_sources_are_numbered_and_placed() -> None:
    """Each source has its number, title, heading and page above its text; the question is last."""
    found = [
        passage("One.", title="Manual", heading="Safety", page=7),
        passage("Two.", number=2, title="Notes"),
    ]
    content, used = _build(found, 100)
    assert content == (
        "Sources:\n\n[1] Manual · Safety · page 7\nOne.\n\n[2] Notes\nTwo.\n\nQuestion: why?"
    )
    assert used == found


def test_what_does_not_fit_is_left_out_for_a_shorter_one() -> None:
    """A long passage is skipped, a shorter one behind it taken, and numbers have no gap."""
    found = passages("a b c", "d e f g h i j", "k")
    content, used = _build(found, 5 + 3)
    assert used == [found[0], found[2]]
    assert "[1] Title\na b c\n\n[2] Title\nk\n\n" in content
    assert "d e f" not in content


def test_the_last_token_of_the_budget_is_used() -> None:
    """A passage that just fits is in, one token more and it is out."""
    found = passages("a b c", "d e f")
    assert _build(found, 10)[1] == found
    assert _build(found, 9)[1] == found[:1]


def test_the_best_passage_is_always_there() -> None:
    """A budget smaller than the best passage still sends it, and nothing else."""
    found = passages("a b c d e f g h", "i")
    assert _build(found, 1)[1] == found[:1]
    assert _build(found, -1000)[1] == found[:1]


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8), budget=st.integers(-10, 120))
def test_any_prompt_keeps_its_budget(lengths: list[int], budget: int) -> None:
    """Whatever the passages, sources keep the budget unless the best one alone exceeds it."""
    found = passages(*("w " * length for length in lengths))
    content, used = _build(found, budget)
    sources = content.removeprefix("Sources:\n\n").rpartition("\n\nQuestion: ")[0]
    assert used[0] == found[0]
    assert _words(sources) <= max(budget, lengths[0] + 2)
    assert [f"[{number}] Title" in sources for number in range(1, len(used) + 2)] == [
        *[True] * len(used),
        False,
    ]
    assert [shown for shown in found if shown in used] == used
