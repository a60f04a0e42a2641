from __future__ import annotations

import pytest

from ragserve.edge.request_id import RequestIds


@pytest.mark.parametrize("given", ["a", "A.z_0:/+=-", "x" * 128])
def test_a_harmless_id_is_kept(given: str) -> None:
    """A client finds its request in our logs by its own name."""
    ids = RequestIds()
    assert ids.text(given) == given
    assert ids.encoded(given.encode()) == given.encode()


@pytest.mark.parametrize("given", ["", "a b", "a\n", "ä", "x" * 129, "{}", '"'])
def test_another_is_replaced(given: str) -> None:
    """What could break a log line or a header is not repeated, as text or as bytes."""
    ids = RequestIds()
    assert len(ids.text(given)) == len(ids.encoded(given.encode())) == 16


def test_ids_do_not_repeat() -> None:
    """As text and as bytes they are 16 hexadecimal digits, from one sequence."""
    ids = RequestIds()
    made = [ids.text("") for _ in range(1000)] + [ids.encoded(None).decode() for _ in range(1000)]
    assert len({int(one, 16) for one in made}) == 2000
    assert {len(one) for one in made} == {16}
